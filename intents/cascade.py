"""The cascade of one message, without I/O and without a clock.

`resolve` is a generator: it yields what it needs next, is sent it, and returns the outcome. Evaluation drives it in a
loop, the server in time; both decide alike.

    message ── equals a phrasing ──────────────────────────────────────────────────────────► its entry
       └─ NeedRetrieved ─► candidates ─► decision ── no confirmer, or it could not change it ─► decision
                                            └─ NeedScores ─► logits ─► ranked again ──────────► decision
"""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import date
from typing import Literal

import msgspec
import numpy as np

from intents.candidates import Candidate
from intents.decide import Decision, Option, answered, decide
from intents.index import FaqIndex
from intents.normalise import normalise
from intents.search import Floats, Retrieved

Unconfirmed = Literal["skipped_budget", "skipped_load", "timed_out", "failed"]
Confirmation = Literal["confirmed", "overruled", "rejected", "not_needed", "disabled"] | Unconfirmed

_STRENGTH = {"no_match": 0, "clarify": 1, "answer": 2, "handoff": 2}


@dataclass(frozen=True, slots=True)
class NeedRetrieved:
    """Asks for a text's vector, and the items nearest to it: a `Retrieved`."""

    text: str


@dataclass(frozen=True, slots=True)
class NeedScores:
    """Asks for the cross-encoder's logits of a message with each of its candidates.

    Those of fewer will do, as (k,) float32 of the first k, k ≥ 1; or an `Unconfirmed` that says why there are none.

    Attributes:
        message: what the visitor typed.
        candidates: as texts for the cross-encoder, best first.
    """

    message: str
    candidates: tuple[str, ...]


Need = NeedRetrieved | NeedScores
Given = Retrieved | Floats | Unconfirmed


class Outcome(msgspec.Struct, frozen=True):
    """How a message ended.

    Attributes:
        decision: what to tell the visitor.
        candidates: what was retrieved, best first, with joint scores where it was confirmed; empty where the message
            equals a phrasing.
        confirmation: what the cross-encoder did. "confirmed": the first candidate stayed, and the decision is no
            weaker; "overruled": another candidate came first; "rejected": the decision became weaker on the same first
            candidate, or became "no_match"; "not_needed": the message equals a phrasing, or the confirmer could not
            change the outcome; "disabled": there is no confirmer, or it was not to be used; or why it did not come to
            it.
        scored: how many candidates the cross-encoder read.
        unconfirmed: what the bi-encoder alone decides; where nothing was read, that is the decision.
    """

    decision: Decision
    candidates: tuple[Candidate, ...]
    confirmation: Confirmation
    scored: int
    unconfirmed: Decision


def resolve(text: str, index: FaqIndex, today: date, *, confirm: bool) -> Generator[Need, Given, Outcome]:
    """Resolve one message.

    Args:
        text: what the visitor typed.
        index: the FAQ's index.
        today: entries that are not valid on this day are left out.
        confirm: False never asks for a cross-encoder's logits.
    """
    entry = index.entry_of(normalise(text), today)
    if entry is not None:
        top = Option(entry, 1.0)
        certain = answered(top, index.faq.entries, (top,))
        return Outcome(certain, (), "not_needed", 0, certain)
    found = yield NeedRetrieved(text)
    if not isinstance(found, Retrieved):
        raise TypeError(f"what the text retrieves was asked for, not {found!r}")
    candidates = index.scorer.candidates(text, found, index.allowed_on(today))
    alone = decide(candidates, index.faq.entries, index.policy)
    confirmer = index.confirmer

    def unconfirmed(why: Confirmation) -> Outcome:
        return Outcome(alone, tuple(candidates), why, 0, alone)

    if not confirm or confirmer is None:
        return unconfirmed("disabled")
    if not candidates or not confirmer.may_change(index.policy.confidence.of(candidates[0])):
        return unconfirmed("not_needed")
    texts = tuple(index.rendered(candidate) for candidate in candidates[: confirmer.candidates])
    logits = yield NeedScores(text, texts)
    if isinstance(logits, str):
        return unconfirmed(logits)
    if not isinstance(logits, np.ndarray) or logits.ndim != 1 or not 1 <= len(logits) <= len(texts):
        raise ValueError(f"logits of the first 1 to {len(texts)} candidates were asked for, not {logits!r}")
    if not np.isfinite(logits).all():
        return unconfirmed("failed")
    ranked = confirmer.joint.rank(candidates, logits.tolist())
    decision = decide(ranked, index.faq.entries, confirmer.policy)
    status = _confirmation(alone, decision, same_top=ranked[0].entry == candidates[0].entry)
    return Outcome(decision, tuple(ranked), status, len(logits), alone)


def _confirmation(before: Decision, after: Decision, *, same_top: bool) -> Confirmation:
    weaker = _STRENGTH[after.kind] < _STRENGTH[before.kind]
    if weaker and (same_top or after.kind == "no_match"):
        return "rejected"
    return "confirmed" if same_top else "overruled"
