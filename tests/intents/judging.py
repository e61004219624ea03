"""Judged messages by hand, for tests of what is made of them."""

from intents.cascade import Confirmation
from intents.decide import DecisionKind
from intents.evaluate import Judged
from intents.labelled import Labelled
from intents.systems import Run


def judged(
    expected: str | None,
    kind: DecisionKind | None,
    *ranking: str,
    confidence: float = 0.5,
    offered: tuple[str, ...] = (),
    agrees: bool | None = True,
    confirmation: Confirmation = "not_needed",
    text: str = "text",
) -> Judged:
    """A message that ended in a decision on the first of these entries."""
    read = 5 if confirmation in {"confirmed", "overruled", "rejected"} else 0
    return Judged(Labelled(text, expected), ranking, confidence, kind, offered, agrees, confirmation, read)


def run(*messages: Judged, seconds: float = 1.0) -> Run:
    """One system's messages, for which models took so many seconds."""
    return Run(messages, seconds)
