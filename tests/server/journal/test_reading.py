"""Guards `server.journal.reading` and `erasing`: counts and rows of a selection; what is erased is in no file."""

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from server.errors import JournalError
from server.journal import database, erasing, reading
from server.journal.database import place_of
from server.journal.erasing import count_selected, erase
from server.journal.reading import Counts, Selection, columns_of, count, read
from server.journal.schema import asks, feedback
from server.journal.store import Store
from tests.server.journal.records import asked, rows, said

MONDAY, TUESDAY, WEDNESDAY = (date(2026, 11, day) for day in (23, 24, 25))


def at(day: date, hour: int = 12, minute: int = 0) -> datetime:
    """A time of a day in UTC."""
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


@pytest.fixture
def filled(store: Store) -> Store:
    """Asks of two visitors on three days, and what they said."""
    store.write(rows(asked("a"), asked("b", decision="no_match"), said("a"), at=at(MONDAY, 0)))
    store.write(rows(asked("c", visitor="v2"), said("c", visitor=None, helpful=False), at=at(TUESDAY, 23, 59)))
    store.write(rows(asked("d", visitor=None, decision="clarify"), said("d", visitor="v2"), at=at(WEDNESDAY)))
    return store


def chosen(store: Store, selection: Selection) -> tuple[str, str]:
    """The refs of a selection's asks and feedback."""
    refs = ["".join(row["ref"] for row in read(store, table, selection)) for table in (asks, feedback)]
    return refs[0], refs[1]


SELECTIONS = {
    Selection(): ("abcd", "acd"),
    Selection(first=TUESDAY): ("cd", "cd"),
    Selection(last=TUESDAY): ("abc", "ac"),
    Selection(first=MONDAY, last=MONDAY): ("ab", "a"),
    Selection(visitor="v1"): ("ab", "a"),
    Selection(visitor="v2"): ("c", "cd"),
    Selection(visitor="v2", first=WEDNESDAY): ("", "d"),
    Selection(visitor="v3"): ("", ""),
}


@pytest.mark.parametrize(("selection", "refs"), SELECTIONS.items())
def test_selections(filled: Store, selection: Selection, refs: tuple[str, str]) -> None:
    """Days are in UTC and whole; a visitor's feedback is what they said, and what was said about what they asked."""
    assert chosen(filled, selection) == refs
    assert count_selected(filled, selection) == (len(refs[0]), len(refs[1]))


def test_counts(filled: Store) -> None:
    """Asks by decision and feedback by what it says: of all days, and of each."""
    assert count(filled, Selection(), by_day=False) == [
        Counts(None, {"answer": 2, "no_match": 1, "clarify": 1}, helpful=2, unhelpful=1)
    ]
    assert count(filled, Selection(first=TUESDAY), by_day=True) == [
        Counts("2026-11-24", {"answer": 1}, helpful=0, unhelpful=1),
        Counts("2026-11-25", {"clarify": 1}, helpful=1, unhelpful=0),
    ]
    assert count(filled, Selection(visitor="v3"), by_day=True) == []
    assert count(filled, Selection(visitor="v3"), by_day=False) == [Counts(None, {}, helpful=0, unhelpful=0)]


def test_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come in order, each once, whatever the size of a page, and what is erased meanwhile disturbs nobody."""
    monkeypatch.setattr(reading, "PAGE", 3)
    store.write(rows(*(asked(f"{n}") for n in range(10))))
    found = []
    for row in read(store, asks, Selection()):
        found.append(row["ref"])
        assert list(row) == columns_of(asks)
        if row["ref"] == "4":
            store.write(rows(asked("10")))
    assert found == [f"{n}" for n in range(11)]


@pytest.mark.parametrize(("selection", "refs"), SELECTIONS.items())
def test_erase(filled: Store, monkeypatch: pytest.MonkeyPatch, selection: Selection, refs: tuple[str, str]) -> None:
    """What is selected is erased, and nothing else, some rows at a time."""
    monkeypatch.setattr(erasing, "CHUNK", 1)
    everything = chosen(filled, Selection())
    assert erase(filled, selection) == (len(refs[0]), len(refs[1]))
    left = chosen(filled, Selection())
    assert left == tuple(
        "".join(ref for ref in all_ if ref not in gone) for all_, gone in zip(everything, refs, strict=True)
    )


SECRETS = st.lists(st.text("abcdefghij", min_size=12, max_size=3000), min_size=1, max_size=30)


@hypothesis.settings(max_examples=15)
@hypothesis.given(SECRETS, SECRETS, st.integers(1, 40))
def test_nothing_is_left_in_the_files(
    tmp_path_factory: pytest.TempPathFactory, gone: list[str], stays: list[str], groups: int
) -> None:
    """Texts and comments that were erased are in none of SQLite's files, while the server has the journal open."""
    file = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    server, operator = Store(place_of(str(file))), Store(place_of(str(file)))
    given = [
        row
        for number, (his, hers) in enumerate(zip(gone * 30, stays * 30, strict=False))
        for row in rows(
            asked(f"hers {number}", visitor="her", text=f"stay:{hers}"),
            asked(f"his {number}", visitor="him", text=f"gone:{his}"),
            said(f"his {number}", visitor="him", comment=f"gone:{his}"),
        )
    ]
    size = -(-len(given) // groups)
    for start in range(0, len(given), size):
        server.write(given[start : start + size])
    assert any(b"gone:" in path.read_bytes() for path in file.parent.iterdir())
    erase(operator, Selection(visitor="him"))
    server.write(rows(asked("last", visitor="her", text="stay:")))
    held = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"gone:" not in held
    assert b"stay:" in held
    for store in (server, operator):
        store.close()


def test_somebody_reads(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process reads what was there, the log keeps it: that is said, and doing it again does the rest."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.01)
    store = Store(place_of(str(file)))
    store.write(rows(asked("a", text="a secret")))
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT text FROM asks").fetchall() == [("a secret",)]
        with pytest.raises(JournalError, match=r"deleted, but another process reads, .* erase again when it is done"):
            erase(store, Selection(visitor="v1"), patience=0.0)
        assert chosen(store, Selection()) == ("", "")
    assert erase(store, Selection(visitor="v1")) == (0, 0)
    assert not [path for path in file.parent.iterdir() if b"a secret" in path.read_bytes()]
    store.close()


def test_a_day_is_whole(store: Store) -> None:
    """The first and the last moment of a day belong to it, and those beside them do not."""
    moment = timedelta(microseconds=1)
    times = {"a": at(TUESDAY, 0) - moment, "b": at(TUESDAY, 0), "c": at(WEDNESDAY, 0) - moment, "d": at(WEDNESDAY, 0)}
    for ref, when in times.items():
        store.write(rows(asked(ref), at=when))
    assert chosen(store, Selection(first=TUESDAY, last=TUESDAY))[0] == "bc"
