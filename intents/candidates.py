"""From the similarities of items to candidates: entries, each with one score.

An entry's score joins two similarities to the message: its nearest item's, so that one strong match counts, and its
centroid's, so that many middling ones do too. Their weight is chosen by the build, on held-out phrasings: entries with
a few phrasings gain several points of accuracy by the centroid, those with a hundred none.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from intents.search import Floats, Positions, Retrieved

# How many candidates a message keeps: enough for a mean reciprocal rank, and for a cross-encoder to choose from.
MAX_CANDIDATES = 10

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry that was retrieved for a message.

    Attributes:
        entry: its position in the FAQ.
        score: its joined similarity to the message, -1 to 1.
        margin: by how much its score passes the best other entry's; negative for all but the first.
    """

    entry: int
    score: float
    margin: float


def nearest_of_each(entries: Positions, scores: Floats) -> tuple[Positions, Floats]:
    """The distinct entries among items that stand best first, each with its best item's similarity.

    Args:
        entries: (n,) the entry of each item.
        scores: (n,) its similarity to the message.
    """
    distinct, first = np.unique(entries, return_index=True)
    return distinct, scores[first]


def rank(entries: Positions, nearest: Floats, centroid: Floats, weight: float, last: float) -> list[Candidate]:
    """Join similarities into candidates.

    Args:
        entries: (m,) distinct entries.
        nearest: (m,) similarity of each one's nearest item.
        centroid: (m,) similarity of each one's centroid.
        weight: of the centroid, where the nearest item's is 1.
        last: similarity of the worst item that was retrieved: what an entry that was not is at most worth.

    Returns:
        At most `MAX_CANDIDATES` candidates, best first; ties by position.
    """
    joined = (nearest + weight * centroid) / (1.0 + weight)
    order = np.lexsort((entries, -joined))[:MAX_CANDIDATES]
    if not len(order):
        return []
    top = float(joined[order[0]])
    second = float(joined[order[1]]) if len(order) > 1 else min(last, top)
    return [
        Candidate(int(entries[i]), float(joined[i]), float(joined[i]) - (top if place else second))
        for place, i in enumerate(order)
    ]


@dataclass(frozen=True)
class EntryScorer:
    """Ranks the entries of retrieved items.

    Attributes:
        owners: (items,) the entry of every item.
        centroids: (entries, dimension) unit length; zeros for entries without items.
        weight: of the centroid, where the nearest item's is 1.
    """

    owners: Positions
    centroids: Floats
    weight: float

    def candidates(self, found: Retrieved, allowed: Mask | None = None) -> list[Candidate]:
        """Candidates of a message.

        Args:
            found: the items nearest to it.
            allowed: (entries,) whether an entry may be answered now, or None for all.
        """
        owners, scores = self.owners[found.positions], found.scores
        if allowed is not None:
            keep = allowed[owners]
            owners, scores = owners[keep], scores[keep]
        if not len(owners):
            return []
        entries, nearest = nearest_of_each(owners, scores)
        return rank(entries, nearest, self.centroids[entries] @ found.vector, self.weight, float(scores[-1]))


def centroids_of(vectors: Floats, owners: Positions, entries: int) -> Floats:
    """The mean direction of each entry's items: (entries, dimension) float32, unit length."""
    sums = np.zeros((entries, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, owners, vectors)
    return unit(sums)


def unit(rows: npt.NDArray[np.float64]) -> Floats:
    """Rows scaled to unit length, as float32; zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
