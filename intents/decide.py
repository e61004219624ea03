"""From candidates to a decision: pure, and monotone in scores and evidence."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from msgspec import structs

from intents.candidates import Candidate
from intents.entries import Entry

DecisionKind = Literal["answer", "clarify", "no_match", "handoff"]

MAX_OPTIONS = 3


class Confidence(msgspec.Struct, frozen=True, kw_only=True):
    """A logistic map from a candidate's evidence and margin to the probability that its entry is right.

    Both weights are at least 0, so confidence never falls when one of them rises. The score itself is not in it: its
    parts that tell entries apart best (how near one phrasing is, and the same words) tell least whether any is meant.
    """

    bias: float
    evidence: float
    margin: float

    def of(self, candidate: Candidate) -> float:
        """The probability, 0 to 1."""
        logit = self.bias + self.evidence * candidate.evidence + self.margin * candidate.margin
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, logit))))


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What calibration found; `decide` follows it.

    Attributes:
        confidence: the map from evidence and margin to a probability.
        answer_at: the least confidence at which the top entry is answered.
        clarify_at: the least confidence at which options are offered; at most `answer_at`.
    """

    confidence: Confidence
    answer_at: float
    clarify_at: float

    def is_monotone(self) -> bool:
        """Whether a higher score can only strengthen a decision: no weight is negative, thresholds are in order."""
        return min(self.confidence.evidence, self.confidence.margin) >= 0 and 0 <= self.clarify_at <= self.answer_at


class Option(msgspec.Struct, frozen=True):
    """A candidate with its calibrated confidence."""

    entry: int
    confidence: float


class Decision(msgspec.Struct, frozen=True):
    """What to tell the visitor.

    Attributes:
        kind: "answer" and "handoff" name an entry, "clarify" offers up to three, "no_match" none.
        entry: position of the decided entry, or None.
        confidence: probability that the top entry is right, also where it was not high enough to answer; where options
            are offered, that of the first of them if it is lower.
        options: for "clarify" the entries offered; otherwise the candidates there were, best first.
    """

    kind: DecisionKind
    entry: int | None
    confidence: float
    options: tuple[Option, ...]


def decide(candidates: Sequence[Candidate], entries: Sequence[Entry], policy: Policy) -> Decision:
    """Decide on a message by its candidates.

    Args:
        candidates: best first; may be empty.
        entries: the FAQ's entries.
        policy: thresholds and the confidence map.
    """
    options = tuple(Option(c.entry, policy.confidence.of(c)) for c in candidates[:MAX_OPTIONS])
    if not options:
        return Decision("no_match", None, 0.0, ())
    top = options[0]
    if top.confidence >= policy.answer_at:
        return answered(top, entries, options)
    offered = tuple(
        Option(c.entry, policy.confidence.of(c))
        for c in offerable(candidates, lambda entry: entries[entry].kind == "smalltalk")
    )
    likely = min(top.confidence, offered[0].confidence) if offered else 0.0
    if offered and likely >= policy.clarify_at:
        return Decision("clarify", None, likely, offered)
    return Decision("no_match", None, top.confidence, options)


def offerable(candidates: Sequence[Candidate], is_smalltalk: Callable[[int], bool]) -> list[Candidate]:
    """The candidates that "did you mean" may offer, best first: at most three, small talk aside.

    Where small talk is passed over, margins are among the others: how near it came does not make them less likely to
    be meant, and a decision stays monotone in its score.
    """
    kept = [c for c in candidates if not is_smalltalk(c.entry)]
    if kept == list(candidates[: len(kept)]):
        return kept[:MAX_OPTIONS]
    rivals = [kept[1].score if len(kept) > 1 else 0.0] + [kept[0].score] * len(kept) if kept else []
    return [structs.replace(c, margin=c.score - rival) for c, rival in zip(kept[:MAX_OPTIONS], rivals, strict=False)]


def answered(top: Option, entries: Sequence[Entry], options: tuple[Option, ...]) -> Decision:
    """The decision for an entry: its answer, or a hand-off where that is what the entry is for."""
    kind: DecisionKind = "handoff" if entries[top.entry].kind == "handoff" else "answer"
    return Decision(kind, top.entry, top.confidence, options)
