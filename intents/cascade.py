"""The cascade of one message, without I/O and without a clock.

`resolve` is a generator: it yields what it needs next, is sent it, and returns the outcome. Evaluation drives it in a
loop, the server in time; both decide alike. What it may need today is the message's vector with the items nearest to
it; a message that equals a phrasing needs nothing.
"""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import date
from typing import Literal

from intents.candidates import Candidate
from intents.decide import Decision, Option, answered, decide
from intents.index import FaqIndex
from intents.normalise import normalise
from intents.search import Retrieved

Confirmation = Literal["disabled", "not_needed"]


@dataclass(frozen=True, slots=True)
class NeedRetrieved:
    """Asks for a text's vector, and the items nearest to it."""

    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a message ended.

    Attributes:
        decision: what to tell the visitor.
        candidates: what was retrieved, best first; empty where the message equals a phrasing.
        confirmation: what the cross-encoder did: "disabled" where there is none, "not_needed" where the message
            equals a phrasing.
    """

    decision: Decision
    candidates: tuple[Candidate, ...]
    confirmation: Confirmation


def resolve(text: str, index: FaqIndex, today: date) -> Generator[NeedRetrieved, Retrieved, Outcome]:
    """Resolve one message.

    Args:
        text: what the visitor typed.
        index: the FAQ's index.
        today: entries that are not valid on this day are left out.
    """
    entry = index.entry_of(normalise(text), today)
    if entry is not None:
        top = Option(entry, 1.0)
        return Outcome(answered(top, index.faq.entries, (top,)), (), "not_needed")
    found = yield NeedRetrieved(text)
    candidates = index.scorer.candidates(found, index.allowed_on(today))
    return Outcome(decide(candidates, index.faq.entries, index.policy), tuple(candidates), "disabled")
