"""What of a record is kept."""

from datetime import datetime
from typing import Any

import msgspec

from server.journal.redaction import redact
from server.recorder import Asked, Feedback
from server.settings import TextPolicy

Row = dict[str, Any]


def row_of(record: Asked | Feedback, at: datetime, policy: TextPolicy) -> Row:
    """The record as it is stored.

    Args:
        record: what was given.
        at: when, in UTC.
        policy: what is kept of texts: nothing, what is left without addresses and numbers, or all.
    """
    row: Row = msgspec.structs.asdict(record)
    for name, value in row.items():
        if isinstance(value, str) and ("\0" in value or not value.isascii()):
            row[name] = _storable(value)
    row["at"] = at
    words = "text" if isinstance(record, Asked) else "comment"
    if policy == "off":
        row[words] = None
    elif policy == "redacted" and row[words] is not None:
        row[words] = redact(row[words])
    return row


def _storable(value: str) -> str:
    """A text without what no database takes: PostgreSQL has no NUL, and lone surrogates are no UTF-8."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
