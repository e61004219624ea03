"""The messages that calibration learns from, made of nothing but the FAQ and the shipped out-of-scope messages.

Three kinds are scored as if visitors had typed them:

- *in scope*: a phrasing, with itself (and what contains it) taken out of the index. The top entry is right or wrong.
  How rare its words are is known from all items, its own included, which changes next to nothing.
- *near* out of scope: such a phrasing with its whole entry taken out. Whatever comes out on top is wrong.
- *far* out of scope: the shipped messages. Whatever comes out on top is wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from intents.candidates import Candidate, Figures, Weights, figures_of
from intents.heads import Heads, fit_heads
from intents.items import Item
from intents.lexical import Lexicon, lexicon_of
from intents.search import SCAN_CELLS, Floats, Positions, Retrieved

MAX_PER_ENTRY = 20
MAX_IN_SCOPE = 4000
MIN_IN_SCOPE = 30
# Into how many parts phrasings are divided, and entries, each of which is once unknown to the heads.
PARTS, ENTRY_PARTS = 5, 8
# Where heads are dear (items times entries), fewer parts are looked at, but never fewer than MIN_IN_SCOPE messages:
# some 20 seconds of two cores.
MOST_WORK = 3e6
SEED = 20261123
FEW = (
    f"fewer than {MIN_IN_SCOPE} phrasings can be held out, which is too few to calibrate on: questions were compared "
    "with their own answers as well, which makes visitors look easier to understand than they are; add phrasings"
)


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
        near: phrasings of left-out entries; empty where there is only one entry.
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
        heads: of all entries, fitted on all items.
        texts: the phrasings that were held out alone.
        in_scope: what each retrieves without the phrasing, and what contains it, by heads that have not seen it.
        expected: (n,) the right entry of each.
        near_texts: the phrasings that were held out with their entries.
        near: what each retrieves without its entry, by heads that have not seen that.
        few: whether there are too few phrasings to hold out; questions were then compared with their own answers.
        notes: what was assumed because the FAQ could not tell.
    """

    retriever: "_Retriever"
    heads: Heads
    texts: list[str]
    in_scope: list[Figures]
    expected: Positions
    near_texts: list[str]
    near: list[Figures]
    few: bool
    notes: tuple[str, ...]

    @property
    def lexicon(self) -> Lexicon:
        """The lexicon of all items."""
        return self.retriever.lexicon

    def messages(self, weights: Weights, far: Sequence[str], vectors: Floats) -> Messages:
        """The messages of a calibration.

        Args:
            weights: of what scores are made of.
            far: out-of-scope messages.
            vectors: (n, dimension) float32, theirs.
        """
        named = zip(self.texts, self.in_scope, self.expected, strict=True)
        in_scope = [Posed(text, int(entry), found.ranked(weights)) for text, found, entry in named]
        near = [
            Posed(text, None, found.ranked(weights)) for text, found in zip(self.near_texts, self.near, strict=True)
        ]
        unknown = zip(far, self.retriever.unknown(far, vectors, self.heads), strict=True)
        shipped = [Posed(text, None, found.ranked(weights)) for text, found in unknown]
        # A bank's FAQ does answer some of what is out of scope for a shop: such messages would teach it to be silent.
        limit = float(np.median([_top_score(posed) for posed in in_scope]))
        kept = [posed for posed in shipped if _top_score(posed) < limit]
        notes = (*self.notes, FEW) if self.few else self.notes
        return Messages(in_scope, near, kept, len(shipped) - len(kept), notes)


def _top_score(posed: Posed) -> float:
    return posed.candidates[0].score if posed.candidates else 0.0


def hold_out(
    vectors: Floats,
    owners: Positions,
    items: Sequence[Item],
    *,
    entries: int,
    neighbours: int,
    per_entry: int = MAX_PER_ENTRY,
    most: int = MAX_IN_SCOPE,
    work: float = MOST_WORK,
    near: bool = True,
) -> Heldout:
    """Hold phrasings out: alone, and with their entries.

    Args:
        vectors: (items, dimension) float32, unit length.
        owners: (items,) the entry of every item.
        items: what the vectors are of.
        entries: how many the FAQ has, with or without items.
        neighbours: how many items a search retrieves.
        per_entry: the most phrasings of an entry that are held out.
        most: the most of all entries together.
        work: items times entries that heads are fitted to, all fits together, beyond the fewest that will do.
        near: whether to hold them out with their entries as well.
    """
    lexicon = lexicon_of([item.text for item in items])
    retriever = _Retriever(np.asarray(vectors), owners, lexicon, entries, neighbours)
    notes = []
    chosen = _phrasings(owners, items, per_entry, most)
    few = len(chosen) < MIN_IN_SCOPE
    if few:
        chosen = np.array([i for i, item in enumerate(items) if item.role == "phrasing"], dtype=np.int64)
    several = owners.min() != owners.max()
    if not several:
        notes.append("there is only one entry: near out-of-scope messages could not be simulated")
    firsts = {int(entry): int(place) for entry, place in zip(*np.unique(owners, return_index=True), strict=True)}
    answers = {item.entry: place for place, item in enumerate(items) if item.role == "answer"}

    def hidden(position: int) -> list[int]:
        """A phrasing, and the item that contains it: a question also stands in its answer's item."""
        entry = int(owners[position])
        contains = position == firsts[entry] and not few and entry in answers
        return [position, answers[entry]] if contains else [position]

    fits = max(1.0, np.floor(work / (len(owners) * len(firsts))))
    found: dict[int, Figures] = {}
    for done, part in enumerate(_parts(chosen, owners)):
        if done >= fits and len(found) >= MIN_IN_SCOPE:
            break
        heads = retriever.heads_without([place for position in part for place in hidden(int(position))])
        for position, scores in zip(part, retriever.scan(retriever.vectors[part]), strict=True):
            text, vector, without = items[position].text, retriever.vectors[position], np.array(hidden(int(position)))
            found[int(position)] = retriever.retrieve(text, vector, scores, without, heads)
    apart: dict[int, Figures] = {}
    for done, group in enumerate(_entry_parts(np.unique(owners[chosen])) if several and near else []):
        if done >= fits and len(apart) >= MIN_IN_SCOPE:
            break
        out = np.flatnonzero(np.isin(owners, group))
        heads = retriever.heads_without(out)
        part = np.intersect1d(chosen, out)
        for position, scores in zip(part, retriever.scan(retriever.vectors[part]), strict=True):
            text, vector = items[position].text, retriever.vectors[position]
            apart[int(position)] = retriever.retrieve(text, vector, scores, out, heads)
    asked, beside = sorted(found), sorted(apart)
    return Heldout(
        retriever,
        retriever.heads_without([]),
        [items[position].text for position in asked],
        [found[position] for position in asked],
        owners[asked],
        [items[position].text for position in beside],
        [apart[position] for position in beside],
        few,
        tuple(notes),
    )


def _parts(chosen: Positions, owners: Positions) -> list[Positions]:
    """Held-out phrasings in parts, none of which has more of an entry than it must."""
    # Entry by entry, dealt out in turn.
    parts = [chosen[np.argsort(owners[chosen], kind="stable")][start::PARTS] for start in range(PARTS)]
    return [np.sort(part) for part in parts if len(part)]


def _entry_parts(entries: Positions) -> list[Positions]:
    """Entries in parts; where there are several, no part is all of them."""
    shuffled = np.random.default_rng(SEED).permutation(entries)
    count = min(ENTRY_PARTS, len(entries))
    return [shuffled[start::count] for start in range(count)]


class _Retriever:
    """Retrieves by an exact scan, with some of the items taken out."""

    def __init__(self, vectors: Floats, owners: Positions, lexicon: Lexicon, entries: int, neighbours: int) -> None:
        self.vectors, self.lexicon = vectors, lexicon
        self._owners, self._entries, self._neighbours = owners, entries, neighbours

    def heads_without(self, hidden: Sequence[int] | Positions) -> Heads:
        """The heads of all entries, fitted without some items."""
        kept = np.setdiff1d(np.arange(len(self._owners)), np.asarray(hidden, dtype=np.int64))
        return fit_heads(self.vectors[kept], self._owners[kept], self._entries)

    def scan(self, messages: Floats) -> Iterator[Floats]:
        """Similarities of every item to each message, in blocks that fit into memory."""
        block = max(1, SCAN_CELLS // len(self.vectors))
        for start in range(0, len(messages), block):
            yield from messages[start : start + block] @ self.vectors.T

    def unknown(self, texts: Sequence[str], vectors: Floats, heads: Heads) -> Iterator[Figures]:
        """What messages retrieve that have no right entry."""
        nothing = np.array([], dtype=np.int64)
        for text, vector, scores in zip(texts, vectors, self.scan(vectors), strict=True):
            yield self.retrieve(text, vector, scores, nothing, heads)

    def retrieve(self, text: str, vector: Floats, scores: Floats, hidden: Positions, heads: Heads) -> Figures:
        """What a message retrieves while some items are hidden.

        Args:
            text: the message.
            vector: (dimension,) its own.
            scores: (items,) similarities.
            hidden: items that count as absent.
            heads: fitted without them.
        """
        scores = scores.copy()
        scores[hidden] = -np.inf
        count = min(self._neighbours, len(scores) - len(hidden))
        found = np.argpartition(-scores, count - 1)[:count] if count else np.array([], dtype=np.int64)
        found = found[np.argsort(-scores[found], kind="stable")]
        lexical = self.lexicon.similarities(text, found)
        return figures_of(self._owners[found], Retrieved(vector, found, scores[found]), heads, lexical)


def _phrasings(owners: Positions, items: Sequence[Item], per_entry: int, most: int) -> Positions:
    """A seeded sample of the phrasings whose entries have another one."""
    chooser = np.random.default_rng(SEED)
    asked = np.flatnonzero([item.role == "phrasing" for item in items])
    starts = np.flatnonzero(np.diff(owners[asked])) + 1  # items stand entry by entry
    groups = [own for own in np.split(asked, starts) if len(own) > 1]
    chosen = [chooser.permutation(own)[:per_entry] for own in groups]
    flat = np.concatenate(chosen) if chosen else np.array([], dtype=np.int64)
    return np.sort(chooser.permutation(flat)[:most])
