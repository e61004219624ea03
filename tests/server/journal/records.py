"""Records to give to a journal, and what it has of them."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.journal.records import row_of
from server.journal.schema import asks, feedback
from server.journal.store import Rows
from server.recorder import Asked, Feedback
from server.settings import Settings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def asked(ref: str, **changes: Any) -> Asked:
    """An ask."""
    fields: dict[str, Any] = {
        "connection": "c1",
        "visitor": "v1",
        "text": "where is my order",
        "decision": "answer",
        "entry": "track-order",
        "confidence": 0.9375,
        "confirmation": "not_needed",
        "total_ms": 3.25,
        "index_version": "20261123T155609421Z-2403d0c6",
    }
    return Asked(ref=ref, **{**fields, **changes})


def said(ref: str, **changes: Any) -> Feedback:
    """A feedback."""
    fields: dict[str, Any] = {"connection": "c1", "visitor": "v1", "helpful": True, "comment": None}
    return Feedback(ref=ref, **{**fields, **changes})


def rows(*records: Asked | Feedback, at: datetime = NOW) -> Rows:
    """What a store is given of records."""
    return [(asks if isinstance(r, Asked) else feedback, row_of(r, at, "full")) for r in records]


def settings_for(journal: Path | str, **changes: Any) -> Settings:
    """Settings with a journal."""
    return Settings(journal=str(journal), **changes)


def query(file: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a SQLite file has."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(sql).fetchall()


def refs(file: Path, table: str = "asks") -> list[str]:
    """The refs of a table's rows, in order."""
    return [ref for (ref,) in query(file, f"SELECT ref FROM {table} ORDER BY id")]  # noqa: S608 a test's own tables
