"""What a FAQ has to teach a cross-encoder: its messages with their candidates, as a server would find them.

A phrasing is a message to the FAQ that lacks it, as in calibration (`intents.holdout`); labelled messages are put to
the whole FAQ. Out-of-scope ones have candidates too, none of which is right. A message that equals a phrasing is never
read by a model, and so teaches nothing.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from export.groups import Candidate, Group
from export.runtime.bi_encoder import BiEncoder
from intents.candidates import EntryScorer, Weights
from intents.effort import NEIGHBOURS
from intents.entries import Faq, texts_of
from intents.holdout import Posed, hold_out
from intents.items import Item, answer_of, items_of, shown, ways_to_ask
from intents.labelled import Labelled
from intents.normalise import normalise
from intents.search import ExactSearch
from intents.weighing import choose_weights

# One phrasing in so many is kept to judge by, of entries that have more than two; in a small FAQ so many as are judged
# by, as long as that is not more than one in three.
LEFT_OUT, ENOUGH, SPARED = 8, 50, 3
# So many of an entry's ways to ask may stand for its question.
WAYS = 8


def split(faq: Faq, chance: np.random.Generator) -> tuple[Faq, list[Labelled]]:
    """The FAQ without some of its phrasings, and these as messages.

    Of an entry's phrasings one in `LEFT_OUT` is left out, its question never, and none where it has no two others; more
    in a small FAQ, so that its next build has enough to calibrate by that nobody has learnt.
    """
    entries, left_out = [], []
    spared = sum(len(entry.phrasings) for entry in faq.entries if len(entry.phrasings) > 1 and entry.enabled)
    share = min(max(1 / LEFT_OUT, ENOUGH / max(spared, 1)), 1 / SPARED)
    for entry in faq.entries:
        spare = entry.phrasings if len(entry.phrasings) > 1 and entry.enabled else ()
        away = set(np.flatnonzero(chance.random(len(spare)) < share).tolist())
        left_out += [Labelled(spare[i], entry.id) for i in sorted(away)]
        kept = tuple(text for i, text in enumerate(entry.phrasings) if i not in away)
        entries.append(msgspec.structs.replace(entry, phrasings=kept))
    return msgspec.structs.replace(faq, entries=tuple(entries)), left_out


class Miner:
    """Finds a FAQ's messages their candidates.

    Args:
        faq: at least one of its entries is enabled.
        encoder: the bi-encoder that finds them.
        per_entry: the most phrasings of an entry that are messages.
        most: the most of all entries together.
        weights: of what entries' scores are made of; None chooses them as a build does.
    """

    def __init__(
        self, faq: Faq, encoder: BiEncoder, *, per_entry: int = 100, most: int = 20_000, weights: Weights | None = None
    ) -> None:
        self._faq, self._encoder = faq, encoder
        self._items = items_of(faq.entries)
        self._answers = [answer_of(entry) for entry in faq.entries]
        self._ways = [ways_to_ask(entry)[:WAYS] for entry in faq.entries]
        self._vectors = encoder.encode([item.text for item in self._items])
        self._owners = np.array([item.entry for item in self._items], dtype=np.int64)
        self._neighbours = min(NEIGHBOURS, len(self._items))
        self._held_out = hold_out(
            self._vectors,
            self._owners,
            self._items,
            entries=len(faq.entries),
            neighbours=self._neighbours,
            per_entry=per_entry,
            most=most,
            work=math.inf,
            near=False,
        )
        self._weights = choose_weights(self._held_out) if weights is None else weights

    def phrasings(self) -> list[Group]:
        """Its own phrasings, each as a message to the FAQ that lacks it; those of lonely entries are left out."""
        posed = self._held_out.messages(self._weights, [], self._vectors[:0]).in_scope
        return [group for one in posed if (group := self._group(one)) is not None]

    def messages(self, labelled: Sequence[Labelled]) -> list[Group]:
        """Messages put to the whole FAQ; those whose right entry is not among their candidates are left out."""
        return [group for one in self.pose(labelled) if (group := self._group(one)) is not None]

    def pose(self, labelled: Sequence[Labelled]) -> list[Posed]:
        """Messages put to the whole FAQ, without those that equal one of its phrasings; their entries are enabled."""
        known = {normalise(text) for entry in self._faq.entries if entry.enabled for _, text in texts_of(entry)}
        labelled = [one for one in labelled if normalise(one.text) not in known]
        scorer = EntryScorer(self._owners, self._held_out.heads, self._held_out.lexicon, self._weights)
        vectors = self._encoder.encode([one.text for one in labelled])
        found = ExactSearch(self._vectors, neighbours=self._neighbours).retrieve(vectors)
        ids = {entry.id: position for position, entry in enumerate(self._faq.entries)}
        return [
            Posed(one.text, None if one.expected is None else ids[one.expected], scorer.candidates(one.text, retrieved))
            for one, retrieved in zip(labelled, found, strict=True)
        ]

    def _group(self, posed: Posed) -> Group | None:
        entries = [candidate.entry for candidate in posed.candidates]
        if not entries or (posed.expected is not None and posed.expected not in entries):
            return None
        right = None if posed.expected is None else entries.index(posed.expected)
        return Group(posed.text, self.shown(posed), right)

    def shown(self, posed: Posed) -> tuple[Candidate, ...]:
        """A message's candidates as a cross-encoder is shown them."""
        return tuple(self._shown(c.entry, self._items[c.item], c.score, posed.text) for c in posed.candidates)

    def _shown(self, position: int, nearest: Item, score: float, message: str) -> Candidate:
        phrasing = nearest.text if nearest.role == "phrasing" else None
        parts = shown(self._faq.entries[position], phrasing, self._answers[position], without=message)
        return Candidate(*parts, score, self._ways[position])
