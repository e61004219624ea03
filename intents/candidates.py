"""From the similarities of items to candidates: entries, each with one score.

An entry's score joins two figures of the message: the similarity of its nearest item, so that one strong match counts,
and its head's score (`intents.heads`), so that many middling ones do too. Their weight is chosen by the build, on
held-out phrasings.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from intents.heads import Heads
from intents.search import Floats, Positions, Retrieved

# How many candidates a message keeps: enough for a mean reciprocal rank, and for a cross-encoder to choose from.
MAX_CANDIDATES = 10

Mask = npt.NDArray[np.bool_]


class Candidate(msgspec.Struct, frozen=True):
    """An entry that was retrieved for a message.

    Attributes:
        entry: its position in the FAQ.
        score: the weighted mean of its nearest item's similarity and its head's score; its joint score, once a
            cross-encoder has read it.
        margin: by how much its score passes the best other entry's; negative for all but the first.
        item: position of its nearest item.
    """

    entry: int
    score: float
    margin: float
    item: int


def nearest_of_each(entries: Positions) -> tuple[Positions, Positions]:
    """The distinct entries among items that stand best first, and where each one's best item stands.

    Args:
        entries: (n,) the entry of each item.

    Returns:
        (m,) entries, and for each the place of its first item; best first.
    """
    # For a hundred items a dict is several times quicker than numpy's sorting.
    first: dict[int, int] = {}
    for place, entry in enumerate(entries.tolist()):
        first.setdefault(entry, place)
    return np.array(list(first), dtype=np.int64), np.array(list(first.values()), dtype=np.int64)


def rank(
    entries: Positions, items: Positions, nearest: Floats, head: Floats, weight: float, last: float
) -> list[Candidate]:
    """Join similarities and head scores into candidates.

    Args:
        entries: (m,) distinct entries.
        items: (m,) position of each one's nearest item.
        nearest: (m,) that item's similarity.
        head: (m,) each one's head score.
        weight: of the head, where the nearest item's is 1.
        last: similarity of the worst item that was retrieved: what an entry that was not is at most worth.

    Returns:
        At most `MAX_CANDIDATES` candidates, best first; ties by position.
    """
    joined = (nearest + weight * head) / (1.0 + weight)
    order = np.lexsort((entries, -joined))[:MAX_CANDIDATES]
    if not len(order):
        return []
    top = float(joined[order[0]])
    second = float(joined[order[1]]) if len(order) > 1 else min(last, top)
    return [
        Candidate(int(entries[i]), float(joined[i]), float(joined[i]) - (top if place else second), int(items[i]))
        for place, i in enumerate(order)
    ]


@dataclass(frozen=True)
class EntryScorer:
    """Ranks the entries of retrieved items.

    Attributes:
        owners: (items,) the entry of every item.
        heads: of every entry.
        weight: of the head, where the nearest item's is 1.
    """

    owners: Positions
    heads: Heads
    weight: float

    def candidates(self, found: Retrieved, allowed: Mask | None = None) -> list[Candidate]:
        """Candidates of a message.

        Args:
            found: the items nearest to it.
            allowed: (entries,) whether an entry may be answered now, or None for all.
        """
        positions, scores = found.positions, found.scores
        owners = self.owners[positions]
        if allowed is not None:
            keep = allowed[owners]
            owners, positions, scores = owners[keep], positions[keep], scores[keep]
        if not len(owners):
            return []
        entries, first = nearest_of_each(owners)
        head = self.heads.of(found.vector, entries) if self.weight else np.zeros(len(entries), dtype=np.float32)
        return rank(entries, positions[first], scores[first], head, self.weight, float(scores[-1]))
