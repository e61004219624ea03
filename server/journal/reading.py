"""What is in a journal: counted, and row by row; and what of it is to be erased."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, func, literal, or_, select

from server.journal.schema import asks, feedback
from server.journal.store import Store

# Rows that are read in one transaction: a long one would keep SQLite from emptying its log.
PAGE = 1000


@dataclass(frozen=True)
class Selection:
    """Which records are meant; what is None does not restrict.

    Attributes:
        first: their first day, in UTC.
        last: their last day, in UTC.
        visitor: whose they are.
    """

    first: date | None = None
    last: date | None = None
    visitor: str | None = None

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return (self.first, self.last, self.visitor) != (None, None, None)

    def of(self, table: Table) -> ColumnElement[bool]:
        """The rows of a table that are meant. A feedback on a visitor's ask is the visitor's, too."""
        rules: list[ColumnElement[bool]] = [literal(value=True)]
        if self.first is not None:
            rules.append(table.c.at >= _midnight(self.first))
        if self.last is not None and self.last < date.max:
            rules.append(table.c.at < _midnight(self.last + timedelta(days=1)))
        if self.visitor is not None:
            whose = table.c.visitor == self.visitor
            if table is feedback:
                whose = or_(whose, table.c.ref.in_(select(asks.c.ref).where(asks.c.visitor == self.visitor)))
            rules.append(whose)
        return and_(*rules)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


@dataclass(frozen=True)
class Counts:
    """What was asked, and what was said about it.

    Attributes:
        day: on which day, in UTC; None for all days.
        decisions: asks, by decision.
        helpful: feedbacks that say that an answer helped.
        unhelpful: those that say that it did not.
    """

    day: str | None
    decisions: dict[str, int]
    helpful: int
    unhelpful: int

    @property
    def asks(self) -> int:
        """All of them."""
        return sum(self.decisions.values())


def count(store: Store, selection: Selection, *, by_day: bool) -> list[Counts]:
    """Count asks by decision, and feedback; for each day on which there was any, or for all together.

    Raises:
        JournalError: the journal cannot be read.
    """
    with store.transaction(reading=True) as connection:

        def grouped(table: Table, what: str) -> dict[str | None, dict[Any, int]]:
            day: ColumnElement[Any] = _day(table, connection.dialect.name) if by_day else literal(None)
            columns = (day.label("day"), table.c[what])
            groups = (day, table.c[what]) if by_day else (table.c[what],)
            found: dict[str | None, dict[Any, int]] = {}
            query = select(*columns, func.count()).where(selection.of(table)).group_by(*groups)
            for on, value, number in connection.execute(query):
                found.setdefault(on, {})[value] = number
            return found

        decisions, said = grouped(asks, "decision"), grouped(feedback, "helpful")
    days = sorted({*decisions, *said}, key=str) if by_day else [None]
    return [
        Counts(
            day=day,
            decisions=decisions.get(day, {}),
            helpful=said.get(day, {}).get(True, 0),
            unhelpful=said.get(day, {}).get(False, 0),
        )
        for day in days
    ]


def _day(table: Table, dialect: str) -> ColumnElement[Any]:
    if dialect == "sqlite":
        return func.strftime("%Y-%m-%d", table.c.at)
    return func.to_char(func.timezone("UTC", table.c.at), "YYYY-MM-DD")


def columns_of(table: Table) -> list[str]:
    """What a row of `read` has, in order."""
    own = [column.name for column in table.c if column.name != "id"]
    return [*own, "helpful", "comment"] if table is asks else own


def read(store: Store, table: Table, selection: Selection) -> Iterator[dict[str, Any]]:
    """The rows of a table in the order in which they were written; asks have their feedback with them.

    A page at a time: what is written or erased meanwhile may or may not be among them.

    Raises:
        JournalError: the journal cannot be read.
    """
    last = 0
    while True:
        query = _page(table).where(table.c.id > last, selection.of(table)).order_by(table.c.id).limit(PAGE)
        with store.transaction(reading=True) as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        for row in rows:
            last = row.pop("id")
            yield row
        if len(rows) < PAGE:
            return


def _page(table: Table) -> Select[Any]:
    if table is not asks:
        return select(table)
    said = (feedback.c.helpful.label("helpful"), feedback.c.comment.label("comment"))
    return select(asks, *said).select_from(asks.outerjoin(feedback, feedback.c.ref == asks.c.ref))
