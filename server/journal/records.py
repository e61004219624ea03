"""What the journal is given, and what of it is kept."""

from datetime import datetime
from typing import Any

import msgspec

from server.journal.redaction import redact
from server.settings import TextPolicy

Row = dict[str, Any]


class Asked(msgspec.Struct, frozen=True, gc=False):
    """An ask that has been answered.

    Attributes:
        ref: the answer's, unique; what feedback names.
        connection: the connection's id.
        visitor: who asked, as far as the server was told; None where it was not. What is erased by.
        text: what was typed; the journal's own policy decides what of it is kept.
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
        ref: the answer's.
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


def row_of(record: Asked | Feedback, at: datetime, policy: TextPolicy) -> Row:
    """The record as it is stored.

    Args:
        record: what was given.
        at: when, in UTC.
        policy: what is kept of texts: nothing, what is left without addresses and numbers, or all.
    """
    row: Row = {name: _storable(value) for name, value in msgspec.structs.asdict(record).items()}
    row["at"] = at
    words = "text" if isinstance(record, Asked) else "comment"
    if policy == "off":
        row[words] = None
    elif policy == "redacted" and row[words] is not None:
        row[words] = redact(row[words])
    return row


def _storable(value: Any) -> Any:
    """Texts without what no database takes: PostgreSQL has no NUL, and lone surrogates are no UTF-8."""
    if not isinstance(value, str):
        return value
    if "\0" in value:
        value = value.replace("\0", "\ufffd")
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
