"""From the similarities of items to candidates: entries, each with one score.

An entry's score joins three figures of the message: the similarity of its nearest item, so that one strong match
counts; its head's score (`intents.heads`), so that many middling ones do too; and the highest lexical similarity of its
items (`intents.lexical`), so that a word counts that tells it from a neighbour. Their weights are chosen by the build,
on held-out phrasings.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from intents.heads import Heads
from intents.lexical import Lexicon
from intents.search import Floats, Positions, Retrieved

# How many candidates a message keeps: enough for a mean reciprocal rank, and for a cross-encoder to choose from.
MAX_CANDIDATES = 10

Mask = npt.NDArray[np.bool_]


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """What counts in an entry's score, where its nearest item's similarity counts 1.

    Attributes:
        head: its head's score.
        lexical: its items' highest lexical similarity.
    """

    head: float = 0.0
    lexical: float = 0.0


class Candidate(msgspec.Struct, frozen=True):
    """An entry that was retrieved for a message.

    Attributes:
        entry: its position in the FAQ.
        score: what it is ranked by: the weighted mean of its nearest item's similarity, its head's score and its
            lexical similarity, to which a cross-encoder's logit is added once it has read it.
        margin: by how much its score passes the best other entry's; negative for all but the first.
        item: position of its nearest item.
        evidence: what speaks for it whatever the others are: its head's score, to which a logit is added likewise; at
            most that of those ranked before it.
    """

    entry: int
    score: float
    margin: float
    item: int
    evidence: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What the entries of retrieved items have to show for one message, before it is joined.

    Attributes:
        entries: (m,) distinct entries, that of the nearest item first.
        items: (m,) position of each one's nearest item.
        nearest: (m,) that item's similarity.
        head: (m,) each one's head score.
        lexical: (m,) the highest lexical similarity of each one's retrieved items.
        last: similarity of the worst item that was retrieved: what an entry that was not is at most worth.
    """

    entries: Positions
    items: Positions
    nearest: Floats
    head: Floats
    lexical: Floats
    last: float

    def joined(self, weights: Weights) -> Floats:
        """(m,) each entry's score."""
        total = self.nearest + weights.head * self.head + weights.lexical * self.lexical
        scores: Floats = total / np.float32(1.0 + weights.head + weights.lexical)
        return scores

    def ranked(self, weights: Weights) -> list[Candidate]:
        """At most `MAX_CANDIDATES` candidates, best first; ties by position."""
        scores = self.joined(weights).tolist()
        order = np.lexsort((self.entries, np.negative(scores)))[:MAX_CANDIDATES].tolist()
        if not order:
            return []
        top = scores[order[0]]
        second = scores[order[1]] if len(order) > 1 else min(self.last, top)
        evidence = np.minimum.accumulate(self.head[order]).tolist()
        entries, items = self.entries, self.items
        return [
            Candidate(
                int(entries[i]), scores[i], scores[i] - (top if place else second), int(items[i]), evidence[place]
            )
            for place, i in enumerate(order)
        ]


def figures_of(owners: Positions, found: Retrieved, heads: Heads, lexical: Floats | None) -> Figures:
    """The figures of the entries that own retrieved items.

    Args:
        owners: (n,) the entry of each item that was found.
        found: what was found, best first.
        heads: of every entry.
        lexical: (n,) lexical similarities of these items; None where they do not count.
    """
    # For a hundred items a dict is several times quicker than numpy's sorting.
    first: dict[int, int] = {}
    rows = [first.setdefault(owner, place) for place, owner in enumerate(owners.tolist())]
    entries = np.fromiter(first, dtype=np.int64, count=len(first))
    places = np.fromiter(first.values(), dtype=np.int64, count=len(first))
    highest = np.zeros(len(entries), dtype=np.float32)
    if lexical is not None:
        by_first = np.zeros(len(owners), dtype=np.float32)
        np.maximum.at(by_first, rows, lexical)
        highest = by_first[places]
    return Figures(
        entries,
        found.positions[places],
        found.scores[places],
        heads.of(found.vector, entries),
        highest,
        float(found.scores[-1]) if len(owners) else 0.0,
    )


@dataclass(frozen=True)
class EntryScorer:
    """Ranks the entries of retrieved items.

    Attributes:
        owners: (items,) the entry of every item.
        heads: of every entry.
        lexicon: of every item.
        weights: how their figures are joined.
    """

    owners: Positions
    heads: Heads
    lexicon: Lexicon
    weights: Weights

    def candidates(self, text: str, found: Retrieved, allowed: Mask | None = None) -> list[Candidate]:
        """Candidates of a message.

        Args:
            text: the message.
            found: the items nearest to it.
            allowed: (entries,) whether an entry may be answered now, or None for all.
        """
        owners = self.owners[found.positions]
        if allowed is not None:
            keep = allowed[owners]
            owners, found = owners[keep], Retrieved(found.vector, found.positions[keep], found.scores[keep])
        lexical = self.lexicon.similarities(text, found.positions) if self.weights.lexical else None
        return figures_of(owners, found, self.heads, lexical).ranked(self.weights)
