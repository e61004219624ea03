"""The journal's tables as they are now. `migrations` makes them; a test holds the two equal.

`docs/journal.md` explains every column.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC. SQLite has no times: there it is a text that sorts as times do, and that its functions read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """What the column is."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """For the database."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """For Python."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        found: datetime = value.astimezone(UTC)
        return found


# SQLite gives ids by itself to a column that is called INTEGER and nothing else.
Id = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

asks = Table(
    "asks",
    metadata,
    Column("id", Id, Identity(), primary_key=True),
    Column("ref", Text, nullable=False, unique=True),
    Column("at", UtcTime, nullable=False, index=True),
    Column("connection", Text, nullable=False),
    Column("visitor", Text),
    Column("text", Text),
    Column("decision", Text, nullable=False),
    Column("entry", Text),
    Column("confidence", Double, nullable=False),
    Column("confirmation", Text, nullable=False),
    Column("total_ms", Double, nullable=False),
    Column("index_version", Text, nullable=False),
    Index("ix_asks_visitor", "visitor"),
)

# No foreign key: the ask of a feedback may have been dropped, and the feedback is wanted all the same.
feedback = Table(
    "feedback",
    metadata,
    Column("id", Id, Identity(), primary_key=True),
    Column("ref", Text, nullable=False, unique=True),
    Column("at", UtcTime, nullable=False, index=True),
    Column("connection", Text, nullable=False),
    Column("visitor", Text),
    Column("helpful", Boolean, nullable=False),
    Column("comment", Text),
    Index("ix_feedback_visitor", "visitor"),
)
