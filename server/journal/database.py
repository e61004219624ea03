"""Where a journal is, and connections to it.

A SQLite file is written ahead (WAL): several processes read and write it at the same time. `synchronous = FULL` syncs
the log to the disk at every commit, so that what has been committed outlives a process that is killed and a machine
that loses power, as far as disk and system keep what they have said is written; NORMAL, the usual choice with WAL,
would lose the last commits with the power. `fullfsync` is macOS's way to mean it. `secure_delete` overwrites what is
deleted with zeros.
"""

import errno
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)

from server.errors import JournalError

# How long a lock that somebody else holds is waited for, and how long a database may take to answer; in seconds.
LOCK_SECONDS = 2.0
STATEMENT_SECONDS = 30.0
# "faqw": marks a SQLite file as a journal.
APPLICATION_ID = 0x66617177
# What SQLite's codes mean to an operator, by their lowest byte.
_SQLITE_REASONS: dict[int | None, str] = {
    5: "it is locked by another process",
    6: "it is locked by another process",
    8: "it may not be written",
    10: "its disk fails or is full",
    11: "it is damaged; move it away, or mend it with `sqlite3 FILE .recover`",
    13: "its disk is full",
    14: "it cannot be opened; see whether its folder is there and may be written",
    26: "it is not a SQLite database, or damaged; move it away",
}
# Those that come of themselves and may go so: a server can start, and try again.
_PASSING = {5, 6, 10, 13}


@dataclass(frozen=True)
class Place:
    """Where a journal is.

    Attributes:
        file: the SQLite file, absolute; None in PostgreSQL.
        url: for SQLAlchemy.
    """

    file: Path | None
    url: URL

    def __str__(self) -> str:
        """How it is called in sentences: without a password."""
        if self.file is not None:
            return str(self.file)
        return self.url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


def place_of(journal: str) -> Place:
    """The place that the setting `journal` names.

    Raises:
        JournalError: it is a URL of something else, or PostgreSQL's driver is not installed.
    """
    if "://" not in journal:
        file = Path(journal).absolute()
        return Place(file, URL.create("sqlite+pysqlite", database=str(file)))
    try:
        url = make_url(journal)
    except (ArgumentError, ValueError):  # their sentences may have the password
        raise JournalError("journal: the URL cannot be read; write postgresql://USER@HOST/DATABASE") from None
    if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise JournalError(
            f"journal: {url.drivername}:// is not supported; name a file, or write postgresql://USER@HOST/DATABASE"
        )
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise JournalError("a journal in PostgreSQL needs psycopg; install `faqwire[postgresql]`") from None
    url = url.set(drivername="postgresql+psycopg")
    try:
        url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError, TypeError):
        raise JournalError("journal: what stands behind ? in the URL cannot be read") from None
    return Place(None, url)


def engine_of(place: Place) -> Engine:
    """What connects to a place; every connection is opened anew.

    A transaction that writes waits `LOCK_SECONDS` for locks. What it is for is the connection's execution option
    `transaction`: "write" (the default) takes SQLite's one right to write as it begins, for two that have read could
    not both go on to write; "read" holds nobody up; "none" is for what a transaction cannot do.
    """
    if place.file is not None:
        engine = create_engine(
            place.url,
            poolclass=NullPool,
            # Transactions are begun below, by name; sqlite3 would begin them at the first change.
            connect_args={"timeout": LOCK_SECONDS, "isolation_level": None, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        place.url,
        poolclass=NullPool,
        connect_args={
            "application_name": "faqwire",
            "connect_timeout": 5,
            # A network that swallows everything is noticed; prepared statements would not get through every proxy.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "prepare_threshold": None,
        },
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def create_file(file: Path) -> None:
    """Make an empty file that its owner alone may read, with its folder, where there is none.

    Raises:
        OSError: it cannot be made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _prepare_sqlite(connection: Any, record: object) -> None:
    del record
    cursor = connection.cursor()
    try:
        # Before anything is changed. Whoever marks nothing has something in it.
        (mark,), (tables,) = (
            cursor.execute(sql).fetchone() for sql in ("PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
        )
        if mark != APPLICATION_ID and (mark or tables):
            raise JournalError("is the database of another program; name another file")
        _write_ahead(cursor)
        for pragma in ("synchronous = FULL", "fullfsync = ON", "secure_delete = ON"):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Switch to WAL, for which SQLite waits for no lock by itself."""
    give_up = time.monotonic() + LOCK_SECONDS
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF not in {5, 6} or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            if mode != "wal":
                raise JournalError("is on a file system that SQLite cannot write ahead on; name a file on a local disk")


def _begin_sqlite(connection: Connection) -> None:
    match connection.get_execution_options().get("transaction", "write"):
        case "write":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        case "read":
            connection.exec_driver_sql("BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("transaction", "write") != "write":
        return
    # For this transaction: what is set for a session is lost or left behind in a pool between us and the database.
    connection.exec_driver_sql(
        f"SELECT set_config('lock_timeout', '{1000 * LOCK_SECONDS:.0f}', true), "
        f"set_config('statement_timeout', '{1000 * STATEMENT_SECONDS:.0f}', true)"
    )


# What a database, or the system under it, may raise; sqlite3's own while a connection is being prepared.
FAILURES = (OSError, SQLAlchemyError, sqlite3.Error)


def is_passing(problem: Exception) -> bool:
    """Whether what went wrong may be over without anybody's doing: a lock, a full disk, a lost connection."""
    if isinstance(problem, OSError):
        return problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}
    code = _sqlite_code(problem)
    return isinstance(problem, OperationalError) if code is None else code in _PASSING


def is_of_the_record(problem: Exception) -> bool:
    """Whether it is what was to be stored that the database does not take, and not the state that it is in."""
    if isinstance(problem, DBAPIError):
        return isinstance(problem, DataError | IntegrityError)
    return isinstance(problem, StatementError | TypeError | ValueError | AttributeError)


def reason_of(problem: Exception) -> str:
    """What went wrong, for a sentence that begins with the place's name; never with what was to be stored."""
    if isinstance(problem, OSError):
        return f"cannot be opened ({problem.strerror})"
    said = str(problem.orig if isinstance(problem, DBAPIError) else problem)
    # The first line: what follows may be the values of a row.
    return f"cannot be used: {_SQLITE_REASONS.get(_sqlite_code(problem), said.strip().partition(chr(10))[0])}"


def _sqlite_code(problem: Exception) -> int | None:
    """SQLite's code without its details; None of another database's failure."""
    code = getattr(problem.orig if isinstance(problem, DBAPIError) else problem, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
