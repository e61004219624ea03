"""What is recorded of asks and of what visitors say about answers, and who records it."""

from typing import Protocol

import msgspec


class Asked(msgspec.Struct, frozen=True, gc=False):
    """An ask that has been answered.

    Attributes:
        ref: the answer's, unique; what feedback names.
        connection: the connection's id.
        visitor: who asked, as far as the server was told; None where it was not. What is erased by.
        text: what was typed; the recorder's own policy decides what of it is kept.
        decision: "answer", "clarify", "no_match" or "handoff".
        entry: id of the entry that was decided for, or None.
        confidence: probability that the first candidate's entry is right.
        confirmation: what the cross-encoder did.
        total_ms: from the arrival of the ask until its answer.
        index_version: version of the index that answered.
    """

    ref: str
    connection: str
    visitor: str | None
    text: str
    decision: str
    entry: str | None
    confidence: float
    confirmation: str
    total_ms: float
    index_version: str


class Feedback(msgspec.Struct, frozen=True, gc=False):
    """What a visitor says about an answer. There is one of each answer: a later one takes its place.

    Attributes:
        ref: the answer's, as the client gives it; it may be that of no answer.
        connection: the connection's id.
        visitor: who says it, or None.
        helpful: whether it helped.
        comment: in the visitor's words, or None; kept by the same policy as texts.
    """

    ref: str
    connection: str
    visitor: str | None
    helpful: bool
    comment: str | None = None


class Recorder(Protocol):
    """Records asks as well as it can, and feedback for certain."""

    def asked(self, record: Asked) -> None:
        """Keep an answered ask, if that is possible; returns at once and never raises."""
        ...

    async def feedback(self, record: Feedback) -> None:
        """Record a feedback, and return once it is durable: whoever gave it is told so then.

        Cancelling stops the waiting, because the client has left; it may be recorded all the same.

        Raises:
            NotStored: it is not recorded, or nobody can tell; giving it again is safe.
        """
        ...
