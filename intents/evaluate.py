"""How labelled messages end: by the same code that decides in the server, and counted by nobody yet.

`intents.figures` counts. What is judged names entries by their ids, so that messages put to different indexes can be
counted together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from intents.cascade import Confirmation, Given, NeedRetrieved, NeedScores, Outcome, resolve
from intents.decide import DecisionKind
from intents.entries import OUT_OF_SCOPE
from intents.index import FaqIndex
from intents.labelled import Labelled
from intents.search import Floats, Retrieved, Search


@dataclass(frozen=True)
class Looked:
    """One message, and what it retrieves.

    Attributes:
        message: the message.
        found: what the search found that is judged.
        agrees: whether the top entry is that of an exact scan; None where nothing is searched, as the message equals a
            phrasing.
    """

    message: Labelled
    found: Retrieved
    agrees: bool | None


@dataclass(frozen=True)
class Judged:
    """One message, and how it ended.

    Attributes:
        message: the message.
        ranking: ids of its candidates, best first; of its entry alone where it equals a phrasing.
        confidence: that the first of them is right, 0 to 1; calibrated where there is a decision.
        decision: what the visitor would be told; None where nothing decides.
        offered: ids of the options where that is "clarify".
        agrees: see `Looked`.
        confirmation: what the cross-encoder did.
        read: how many candidates it read.
    """

    message: Labelled
    ranking: tuple[str, ...]
    confidence: float
    decision: DecisionKind | None
    offered: tuple[str, ...] = ()
    agrees: bool | None = None
    confirmation: Confirmation = "not_needed"
    read: int = 0

    @property
    def in_scope(self) -> bool:
        """Whether an entry answers it."""
        return self.message.expected is not None

    @property
    def is_right(self) -> bool:
        """Whether the first candidate answers it; nothing answers an out-of-scope message."""
        return self.in_scope and self.ranking[:1] == (self.message.expected,)

    @property
    def is_answered(self) -> bool:
        """Whether the visitor is given the first candidate; a hand-off is no answer to what no entry answers."""
        return self.decision == "answer" or (self.decision == "handoff" and self.in_scope)

    @property
    def label(self) -> str:
        """What it was taken for, out of scope being a class of its own.

        Options are taken for the right entry where that is among them, and else for the first of them.
        """
        expected = self.message.expected
        if self.decision == "clarify":
            return expected if expected is not None and expected in self.offered else self.offered[0]
        return self.ranking[0] if self.is_answered else OUT_OF_SCOPE


def look_up(
    messages: Sequence[Labelled], vectors: Floats, index: FaqIndex, search: Search, today: date
) -> list[Looked]:
    """Search for messages, and compare with an exact scan.

    Args:
        messages: n of them.
        vectors: (n, dimension) float32, unit length, theirs.
        index: what they are put to.
        search: how it is searched.
        today: entries that are not valid on this day are left out.
    """
    found, exact = search.retrieve(vectors), index.search("exact").retrieve(vectors)
    return [
        Looked(message, one, _agree(message.text, index, today, one, other))
        for message, one, other in zip(messages, found, exact, strict=True)
    ]


def _agree(text: str, index: FaqIndex, today: date, one: Retrieved, other: Retrieved) -> bool | None:
    tops = []
    for found in (one, other):
        outcome = _end(text, found, index, today)
        if not outcome.candidates and outcome.decision.entry is not None:
            return None
        tops.append([candidate.entry for candidate in outcome.candidates[:1]])
    return tops[0] == tops[1]


def needed(looked: Sequence[Looked], index: FaqIndex, today: date) -> dict[int, NeedScores]:
    """What a cross-encoder has to read, by the places of the messages that it may change the decision of."""
    needs: dict[int, NeedScores] = {}
    for place, one in enumerate(looked):

        def note(need: NeedScores, place: int = place) -> Given:
            needs[place] = need
            return "skipped_budget"

        _end(one.message.text, one.found, index, today, note)
    return needs


def judge(
    looked: Sequence[Looked], index: FaqIndex, today: date, logits: Mapping[int, Floats] | None = None
) -> list[Judged]:
    """Run every message through the cascade.

    Args:
        looked: the messages.
        index: what they are put to.
        today: entries that are not valid on this day are left out.
        logits: of the first candidates of all that are `needed`, at least one of each; None confirms nothing.
    """

    def given(place: int) -> Callable[[NeedScores], Given] | None:
        return None if logits is None else lambda _: logits[place]

    return [
        _judged(one, _end(one.message.text, one.found, index, today, given(place)), index)
        for place, one in enumerate(looked)
    ]


def _end(
    text: str,
    found: Retrieved,
    index: FaqIndex,
    today: date,
    scores: Callable[[NeedScores], Given] | None = None,
) -> Outcome:
    """Drive one message to its outcome; without `scores` nothing is confirmed."""
    steps = resolve(text, index, today, confirm=scores is not None)
    try:
        need = next(steps)
        while True:
            if isinstance(need, NeedRetrieved):
                need = steps.send(found)
            elif scores is not None:
                need = steps.send(scores(need))
            else:
                raise AssertionError(f"the cascade wanted {need}, and was told that there is no cross-encoder")
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome


def _judged(looked: Looked, outcome: Outcome, index: FaqIndex) -> Judged:
    decision, entries = outcome.decision, index.faq.entries
    ranked = [candidate.entry for candidate in outcome.candidates]
    if not ranked and decision.entry is not None:  # it equals a phrasing, and nothing was searched
        ranked = [decision.entry]
    offered = decision.options if decision.kind == "clarify" else ()
    return Judged(
        looked.message,
        tuple(entries[entry].id for entry in ranked),
        decision.confidence,
        decision.kind,
        tuple(entries[option.entry].id for option in offered),
        looked.agrees,
        outcome.confirmation,
        outcome.scored,
    )


def by_logits(alone: Judged, logits: Floats | None) -> Judged:
    """A message as if the cross-encoder were alone: its first candidates ranked by their logits, and no decision.

    Args:
        alone: as the bi-encoder alone judged it.
        logits: (k,) of its first k candidates; None where none was to be read, and it stays as it is.
    """
    if logits is None:
        return replace(alone, decision=None, offered=())
    known = [float(logit) if math.isfinite(logit) else -math.inf for logit in logits]
    order = sorted(range(len(known)), key=lambda i: -known[i])
    return replace(
        alone,
        ranking=tuple(alone.ranking[i] for i in order),
        confidence=_logistic(known[order[0]]),
        decision=None,
        offered=(),
        confirmation="confirmed" if order[0] == 0 else "overruled",
        read=len(logits),
    )


def _logistic(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, logit))))
