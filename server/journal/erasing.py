"""Takes records out of a journal so that nothing of them is left in it.

Rows are deleted (SQLite overwrites them with zeros), the tables are written anew without them, and SQLite's log, which
still has them as they were, is emptied. What a disk, a backup or PostgreSQL's own log keeps of a file's past is out of
reach.
"""

import time

from sqlalchemy import delete, func, select

from server.errors import JournalError
from server.journal.reading import Selection
from server.journal.schema import asks, feedback
from server.journal.store import Store

# Rows that are deleted in one transaction: others wait for it.
CHUNK = 1000
# How long somebody who reads may keep the log from being emptied, in seconds.
PATIENCE = 10.0


def count_selected(store: Store, selection: Selection) -> tuple[int, int]:
    """How many asks and feedbacks a selection has.

    Raises:
        JournalError: the journal cannot be read.
    """
    with store.transaction(reading=True) as connection:
        found = [
            connection.scalar(select(func.count()).select_from(table).where(selection.of(table))) or 0
            for table in (asks, feedback)
        ]
    return found[0], found[1]


def erase(store: Store, selection: Selection, *, patience: float = PATIENCE) -> tuple[int, int]:
    """Erase what is selected.

    Args:
        store: the journal.
        selection: what to erase.
        patience: how long to wait for those who read, in seconds.

    Returns:
        How many asks and feedbacks were erased.

    Raises:
        JournalError: it cannot be done now, or rows were deleted and may still be found in SQLite's files; doing it
            again does the rest.
    """
    erased = {asks: 0, feedback: 0}
    # Feedback first: whose it is may be known from its ask alone.
    for table in (feedback, asks):
        chunk = select(table.c.id).where(selection.of(table)).limit(CHUNK)
        while True:
            with store.transaction() as connection:
                deleted = connection.execute(delete(table).where(table.c.id.in_(chunk))).rowcount
            erased[table] += deleted
            if deleted < CHUNK:
                break
    # The log is emptied first as well: whoever has too little space for the second step has done the most of it.
    _empty_log(store, patience)
    store.vacuum()
    _empty_log(store, patience)
    return erased[asks], erased[feedback]


def _empty_log(store: Store, patience: float) -> None:
    give_up = time.monotonic() + patience
    while not store.checkpoint():
        if time.monotonic() >= give_up:
            raise JournalError(
                f"journal {store.place}: the records are deleted, but another process reads, and the file's -wal may "
                "still have them; erase again when it is done",
                passing=True,
            )
        time.sleep(0.05)
