"""Brings a journal's tables up to what this version of faqwire writes.

Alembic is imported only where there is something to do: a server that finds its journal as it left it starts without.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from server.errors import JournalError
from server.journal.database import APPLICATION_ID

# All revisions, oldest first.
REVISIONS = ("0001",)
# Who migrates in PostgreSQL holds this lock.
_ADVISORY_LOCK = APPLICATION_ID


def is_current(connection: Connection) -> bool:
    """Whether the tables are those that this version writes.

    Raises:
        JournalError: a newer faqwire made them; its sentence lacks the place.
    """
    return _revision(connection) == REVISIONS[-1]


def migrate(connection: Connection) -> None:
    """Bring the tables up to date, in the transaction that the connection is in.

    Several may do this at the same time: one does it, the others wait for it and find it done.

    Raises:
        JournalError: as `is_current`.
    """
    if connection.dialect.name == "postgresql":  # SQLite's transaction is the only one that may write
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    if is_current(connection):
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    """The tables' revision; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if found is not None and found not in REVISIONS:
        raise JournalError(f"has revision {found} and this faqwire knows up to {REVISIONS[-1]}: upgrade faqwire")
    return found


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    # Alembic's settings are an INI file's, in which a per cent sign begins a variable.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
