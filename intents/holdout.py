"""The messages that calibration learns from, made of nothing but the FAQ and the shipped out-of-scope messages.

Three kinds are scored as if visitors had typed them:

- *in scope*: a phrasing, with itself (and what contains it) taken out of the index. The top entry is right or wrong.
- *near* out of scope: the same phrasing with its whole entry taken out. Whatever comes out on top is wrong.
- *far* out of scope: the shipped messages. Whatever comes out on top is wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from intents.candidates import Candidate, centroids_of, nearest_of_each, rank, unit
from intents.items import Item
from intents.search import SCAN_CELLS, Floats, Positions

MAX_PER_ENTRY = 20
MAX_IN_SCOPE = 4000
MIN_IN_SCOPE = 30
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
SEED = 20261123


@dataclass(frozen=True)
class Posed:
    """A message as a visitor might have typed it.

    Attributes:
        text: the message.
        expected: its right entry, None where it is out of scope.
        candidates: what it gets from the bi-encoder, best first.
    """

    text: str
    expected: int | None
    candidates: list[Candidate]


@dataclass(frozen=True)
class Messages:
    """All messages of a calibration, by kind.

    Attributes:
        in_scope: phrasings.
        near: the same phrasings, their entries left out; empty where there is only one entry.
        far: shipped messages.
        set_aside: how many shipped messages this FAQ seems to answer; they are not among them.
        notes: what was assumed because the FAQ could not tell.
    """

    in_scope: list[Posed]
    near: list[Posed]
    far: list[Posed]
    set_aside: int = 0
    notes: tuple[str, ...] = ()

    def all(self) -> list[Posed]:
        """Those of all kinds, kind by kind."""
        return [*self.in_scope, *self.near, *self.far]


@dataclass(frozen=True)
class Heldout:
    """Phrasings as messages: what each retrieves when it is not in the index itself.

    Attributes:
        retriever: retrieves from the items.
        texts: the phrasings.
        in_scope: what each retrieves without the phrasing, and what contains it.
        near: the same without their whole entries; empty where there is only one entry.
        expected: (n,) the right entry of each.
        notes: what was assumed because the FAQ could not tell.
    """

    retriever: "_Retriever"
    texts: list[str]
    in_scope: list["_Found"]
    near: list["_Found"]
    expected: Positions
    notes: tuple[str, ...]

    def messages(self, weight: float, far: Sequence[str], vectors: Floats) -> Messages:
        """The messages of a calibration.

        Args:
            weight: of an entry's centroid.
            far: out-of-scope messages.
            vectors: (n, dimension) float32, theirs.
        """
        named = zip(self.texts, self.in_scope, self.expected, strict=True)
        in_scope = [Posed(text, int(entry), found.ranked(weight)) for text, found, entry in named]
        texts = self.texts if self.near else []
        near = [Posed(text, None, found.ranked(weight)) for text, found in zip(texts, self.near, strict=True)]
        unknown = zip(far, self.retriever.unknown(vectors), strict=True)
        shipped = [Posed(text, None, found.ranked(weight)) for text, found in unknown]
        # A bank's FAQ does answer some of what is out of scope for a shop: such messages would teach it to be silent.
        limit = float(np.median([_top_score(posed) for posed in in_scope]))
        kept = [posed for posed in shipped if _top_score(posed) < limit]
        return Messages(in_scope, near, kept, len(shipped) - len(kept), self.notes)


def _top_score(posed: Posed) -> float:
    return posed.candidates[0].score if posed.candidates else 0.0


def hold_out(vectors: Floats, owners: Positions, items: Sequence[Item], *, neighbours: int) -> Heldout:
    """Hold phrasings out, one at a time.

    Args:
        vectors: (items, dimension) float32, unit length.
        owners: (items,) the entry of every item.
        items: what the vectors are of.
        neighbours: how many items a search retrieves.
    """
    retriever = _Retriever(vectors, owners, neighbours)
    notes = []
    chosen = _phrasings(owners, items)
    lonely = len(chosen) < MIN_IN_SCOPE
    if lonely:
        chosen = np.array([i for i, item in enumerate(items) if item.role == "phrasing"], dtype=np.int64)
        notes.append(
            f"fewer than {MIN_IN_SCOPE} phrasings can be held out, which is too few to calibrate on: questions were "
            "compared with their own answers as well, which makes visitors look easier to understand than they are; "
            "add phrasings"
        )
    several = owners.min() != owners.max()
    if not several:
        notes.append("there is only one entry: near out-of-scope messages could not be simulated")
    in_scope, near = [], []
    for position, message, scores in zip(chosen, vectors[chosen], retriever.scan(vectors[chosen]), strict=True):
        own = np.flatnonzero(owners == owners[position])
        # A question also stands in its answer's item, which goes with it.
        answers = [i for i in own if items[int(i)].role == "answer"] if position == own[0] and not lonely else []
        in_scope.append(retriever.retrieve(message, scores, np.array([position, *answers]), own))
        if several:
            near.append(retriever.retrieve(message, scores, own, own))
    texts = [items[int(position)].text for position in chosen]
    return Heldout(retriever, texts, in_scope, near, owners[chosen], tuple(notes))


def choose_weight(held_out: Heldout) -> float:
    """The centroid's weight with which most held-out phrasings find their entry; the smallest of equals."""

    def hits(weight: float) -> int:
        ranked = [found.ranked(weight) for found in held_out.in_scope]
        return sum(bool(c) and c[0].entry == expected for c, expected in zip(ranked, held_out.expected, strict=True))

    return max(WEIGHTS, key=lambda weight: (hits(weight), -weight))


@dataclass(frozen=True)
class _Found:
    """What one message retrieves, before its two similarities are joined."""

    entries: Positions
    items: Positions
    nearest: Floats
    centroid: Floats
    last: float

    def ranked(self, weight: float) -> list[Candidate]:
        return rank(self.entries, self.items, self.nearest, self.centroid, weight, self.last)


class _Retriever:
    """Retrieves by an exact scan, with some of the items taken out."""

    def __init__(self, vectors: Floats, owners: Positions, neighbours: int) -> None:
        self._vectors, self._owners, self._neighbours = vectors, owners, neighbours
        self._centroids = centroids_of(vectors, owners, int(owners.max()) + 1)

    def scan(self, messages: Floats) -> Iterator[Floats]:
        """Similarities of every item to each message, in blocks that fit into memory."""
        block = max(1, SCAN_CELLS // len(self._vectors))
        for start in range(0, len(messages), block):
            yield from messages[start : start + block] @ self._vectors.T

    def unknown(self, messages: Floats) -> Iterator[_Found]:
        """What messages retrieve that have no right entry."""
        nothing = np.array([], dtype=np.int64)
        for message, scores in zip(messages, self.scan(messages), strict=True):
            yield self.retrieve(message, scores, nothing, nothing)

    def retrieve(self, message: Floats, scores: Floats, hidden: Positions, siblings: Positions) -> _Found:
        """What a message retrieves while some items of one entry are hidden.

        Args:
            message: (dimension,) its vector.
            scores: (items,) similarities.
            hidden: items that count as absent.
            siblings: all items of the entry that the hidden ones belong to.
        """
        scores = scores.copy()
        scores[hidden] = -np.inf
        count = min(self._neighbours, len(scores) - len(hidden))
        found = np.argpartition(-scores, count - 1)[:count] if count else hidden[:0]
        found = found[np.argsort(-scores[found], kind="stable")]
        entries, first = nearest_of_each(self._owners[found])
        centroids = self._centroids[entries] @ message
        rest = np.setdiff1d(siblings, hidden)
        if len(rest):
            own = unit(self._vectors[rest].sum(axis=0, dtype=np.float64)[None])[0]
            centroids = np.where(entries == self._owners[rest[0]], own @ message, centroids)
        items = found[first]
        return _Found(entries, items, scores[items], centroids, float(scores[found[-1]]) if count else 0.0)


def _phrasings(owners: Positions, items: Sequence[Item]) -> Positions:
    """A seeded sample of the phrasings whose entries have another one."""
    chooser = np.random.default_rng(SEED)
    asked = np.flatnonzero([item.role == "phrasing" for item in items])
    starts = np.flatnonzero(np.diff(owners[asked])) + 1  # items stand entry by entry
    groups = [own for own in np.split(asked, starts) if len(own) > 1]
    chosen = [chooser.permutation(own)[:MAX_PER_ENTRY] for own in groups]
    flat = np.concatenate(chosen) if chosen else np.array([], dtype=np.int64)
    return np.sort(chooser.permutation(flat)[:MAX_IN_SCOPE])
