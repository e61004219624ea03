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
