"""What reads and writes a journal: one connection, opened when it is needed and again after every failure.

A store belongs to one thread at a time, and its calls block: for a lock, `database.LOCK_SECONDS`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from server.errors import JournalError
from server.journal.database import (
    FAILURES,
    Place,
    create_file,
    engine_of,
    is_of_the_record,
    is_passing,
    reason_of,
)
from server.journal.migrate import is_current, migrate
from server.journal.records import Row
from server.journal.schema import asks, feedback

Rows = Sequence[tuple[Table, Row]]


class Store:
    """A journal's tables.

    Args:
        place: where they are.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._engine = engine_of(place)
        self._connection: Connection | None = None
        # Which file the connection is to; another may come to stand in its place.
        self._file: tuple[int, int] | None = None
        # Whether the last failure was that of a connection which was there before.
        self._lost = False

    def open(self) -> None:
        """Connect, make a SQLite file where there is none, and bring the tables up to date.

        Raises:
            JournalError: that cannot be done; `passing` says whether it is worth trying again.
        """
        with self._sentences():
            self._connected()

    def close(self) -> None:
        """Disconnect; whatever comes next connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except SQLAlchemyError:
                connection.invalidate()

    def write(self, rows: Rows) -> frozenset[int]:
        """Store rows, all in one transaction; when this returns they are on the disk.

        A row whose `ref` is there already replaces the one before it if it is feedback; an ask is left as it is: it is
        the same one, written again because nobody knew whether it had been.

        Returns:
            Positions of rows that the database does not take whatever its state. They are left out, and the others are
            stored one by one.

        Raises:
            JournalError: the journal cannot be written now; some of the rows may have been, and may be given again.
        """
        idle = self._connection is not None
        try:
            return self._write(rows)
        except JournalError:
            # A database that was restarted while nobody asked anything is met at the next write, and is there again.
            if not (idle and self._lost):
                raise
            return self._write(rows)

    def _write(self, rows: Rows) -> frozenset[int]:
        try:
            with self._sentences(), self._transaction() as connection:
                for table in (asks, feedback):
                    values = [row for target, row in rows if target is table]
                    if values:
                        connection.execute(_insert(table, connection.dialect.name), values)
        except _RecordRefused:
            if len(rows) == 1:
                return frozenset({0})
            return frozenset(place for place, row in enumerate(rows) if self._write([row]))
        return frozenset()

    def probe(self) -> None:
        """Write something that changes nothing.

        Raises:
            JournalError: the journal cannot be written now.
        """
        with self._sentences(), self._transaction() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")

    def prune(self, before: datetime, most: int) -> int:
        """Delete records older than this.

        Args:
            before: in UTC.
            most: of each kind, so that nobody waits long for the lock.

        Returns:
            How many there were; fewer than `most` means that nothing is left to delete.

        Raises:
            JournalError: the journal cannot be written now.
        """
        counts = []
        with self._sentences(), self._transaction() as connection:
            for table in (asks, feedback):
                old = select(table.c.id).where(table.c.at < before).order_by(table.c.at).limit(most)
                counts.append(connection.execute(delete(table).where(table.c.id.in_(old))).rowcount)
        return max(counts)

    def checkpoint(self) -> bool:
        """Bring SQLite's log into its file and empty it: what has been deleted is in neither afterwards.

        Returns:
            False where somebody who reads kept it from being emptied.

        Raises:
            JournalError: the journal cannot be written now.
        """
        with self._sentences():
            connection = self._connected()
            if connection.dialect.name != "sqlite":
                return True
            with self._outside(connection):
                busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one()
            return not busy

    def vacuum(self) -> None:
        """Write the tables anew, without what has been deleted; needs as much free space as they take.

        Raises:
            JournalError: that cannot be done now.
        """
        with self._sentences():
            connection = self._connected()
            command = "VACUUM" if connection.dialect.name == "sqlite" else "VACUUM (FULL) asks, feedback"
            with self._outside(connection):
                connection.exec_driver_sql(command)

    @contextmanager
    def transaction(self, *, reading: bool = False) -> Iterator[Connection]:
        """A transaction, committed at its end.

        Args:
            reading: that it changes nothing, and holds nobody up.

        Raises:
            JournalError: what is done in it fails.
        """
        with self._sentences(), self._transaction("read" if reading else "write") as connection:
            yield connection

    @contextmanager
    def _transaction(self, kind: str = "write") -> Iterator[Connection]:
        connection = self._connected().execution_options(transaction=kind)
        with connection.begin():
            yield connection

    @contextmanager
    def _outside(self, connection: Connection) -> Iterator[None]:
        """Outside of transactions. The connection is given up: it would stay so."""
        connection.execution_options(isolation_level="AUTOCOMMIT", transaction="none")
        try:
            yield
        finally:
            self.close()

    def _connected(self) -> Connection:
        if self._connection is not None and self._file != self._file_now():
            # The file was moved or removed, and what is written to it now is lost to everybody.
            self.close()
        if self._connection is None:
            if self.place.file is not None:
                create_file(self.place.file)
            self._connection = self._engine.connect()
            self._file = self._file_now()
            with self._connection.execution_options(transaction="read").begin():
                current = is_current(self._connection)
            if not current:
                with self._connection.execution_options(transaction="write").begin():
                    migrate(self._connection)
        return self._connection

    def _file_now(self) -> tuple[int, int] | None:
        if self.place.file is None:
            return None
        try:
            status = os.stat(self.place.file)  # noqa: PTH116 Path's own is a detour, and this is done for every group
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn what fails into a sentence, and start the next time with a new connection."""
        try:
            yield
        except Exception as exc:
            self._lost = isinstance(exc, DBAPIError) and exc.connection_invalidated
            self.close()
            if isinstance(exc, JournalError):
                raise JournalError(f"journal {self.place} {exc}", passing=exc.passing) from None
            if is_of_the_record(exc):
                raise _RecordRefused from None  # not chained: what the database says may quote the record
            if not isinstance(exc, FAILURES):
                raise
            raise JournalError(f"journal {self.place} {reason_of(exc)}", passing=is_passing(exc)) from None


class _RecordRefused(Exception):
    """The database does not take a record."""


def _insert(table: Table, dialect: str) -> Any:
    insert = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    if table is asks:
        return insert.on_conflict_do_nothing(index_elements=["ref"])
    replaced = {column.name: insert.excluded[column.name] for column in table.c if column.name not in {"id", "ref"}}
    return insert.on_conflict_do_update(index_elements=["ref"], set_=replaced)
