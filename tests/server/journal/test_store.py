"""Guards `server.journal.store` and `migrate` on real databases: what is written is there, whole and in order."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from server.errors import JournalError
from server.journal import database, migrate
from server.journal.database import place_of
from server.journal.reading import Selection, read
from server.journal.schema import asks, feedback, metadata
from server.journal.store import Store
from tests.server.journal.records import NOW, asked, query, refs, rows, said


def kept(store: Store) -> tuple[list[str], list[str]]:
    """The refs of asks and feedback, in order."""
    return (
        [row["ref"] for row in read(store, asks, Selection())],
        [row["ref"] for row in read(store, feedback, Selection())],
    )


def test_rows_come_back(store: Store) -> None:
    """What is written is read as it was, times in UTC; an ask has its feedback with it, or none."""
    store.write(rows(asked("a", visitor=None, entry=None), said("a", helpful=False, comment="no"), asked("b")))
    first, second = read(store, asks, Selection())
    assert first == {
        "ref": "a",
        "at": NOW,
        "connection": "c1",
        "visitor": None,
        "text": "where is my order",
        "decision": "answer",
        "entry": None,
        "confidence": 0.9375,
        "confirmation": "not_needed",
        "total_ms": 3.25,
        "index_version": "20261123T155609421Z-2403d0c6",
        "helpful": False,
        "comment": "no",
    }
    assert (second["ref"], second["helpful"], second["comment"]) == ("b", None, None)


def test_again(store: Store) -> None:
    """An ask that is written again stays as it was; a later feedback takes the place of the one before it."""
    store.write(rows(asked("a"), said("a", comment="one")))
    store.write(rows(asked("a", text="another"), said("a", helpful=False, comment="two"), said("a", comment="three")))
    (row,) = read(store, asks, Selection())
    assert (row["text"], row["helpful"], row["comment"]) == ("where is my order", True, "three")


def test_a_row_that_is_refused(store: Store) -> None:
    """A row that the database does not take is left out, and named by its place; the others are stored, in order."""
    given = rows(asked("a"), asked("b"), said("c"), asked("d"))
    for place in (1, 2):
        given[place][1]["connection"] = None
    assert store.write(given) == {1, 2}
    assert kept(store) == (["a", "d"], [])


def test_texts_that_databases_do_not_take(store: Store) -> None:
    """NUL and lone surrogates are replaced, and everything else is kept."""
    store.write(rows(asked("a", text="a\0b\ud800c \U0001f600é", visitor="\udfff")))
    (row,) = read(store, asks, Selection())
    assert (row["text"], row["visitor"]) == ("a\ufffdb?c \U0001f600é", "?")


def test_prune(store: Store) -> None:
    """What is older goes, a limited number at a time, and what is as old or younger stays."""
    day = timedelta(days=1)
    store.write(rows(*(asked(f"old {n}") for n in range(5)), *(said(f"old {n}") for n in range(3)), at=NOW - day))
    store.write(rows(asked("new"), said("new")))
    assert [store.prune(NOW, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert kept(store) == (["new"], ["new"])


def test_probe(store: Store) -> None:
    """Trying whether anything can be written changes nothing."""
    store.write(rows(asked("a")))
    store.probe()
    store.close()
    store.probe()
    assert kept(store) == (["a"], [])


def test_the_migrations_make_the_tables(store: Store) -> None:
    """The tables that migrations make are those that the code writes, and their last revision is the known one."""
    with store.transaction(reading=True) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    folder = Path(migrate.__file__).parent / "migrations"
    revisions = [script.revision for script in ScriptDirectory(str(folder)).walk_revisions()]
    assert tuple(reversed(revisions)) == migrate.REVISIONS


def test_opened_again(store: Store, journal: str) -> None:
    """A journal is opened as it was left, and without what migrates."""
    store.write(rows(asked("a")))
    code = (
        "import sys; from server.journal.store import Store; from server.journal.database import place_of; "
        f"Store(place_of({journal!r})).open(); sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert kept(store) == (["a"], [])


def test_a_newer_journal(store: Store, journal: str) -> None:
    """What a newer faqwire has written is refused, and left as it is."""
    with store.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(JournalError, match=r"^journal \S+ has revision 9999 and this faqwire knows up to") as caught:
        Store(place_of(journal)).open()
    assert not caught.value.passing


def test_several_open_a_new_journal(journal: str) -> None:
    """Processes that find no journal at the same time make one, and all of them can write to it."""
    code = f"""
import sys
from server.journal.store import Store
from server.journal.database import place_of
from tests.server.journal.records import asked, rows
store = Store(place_of({journal!r}))
print("ready", flush=True)
name = sys.stdin.readline()
store.open()
assert store.write(rows(asked(name))) == frozenset()
"""
    root = Path(__file__).parents[3]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for name, process in enumerate(started):
        assert process.stdin is not None
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
    for process in started:
        process.communicate()
        assert process.returncode == 0
    store = Store(place_of(journal))
    assert sorted(kept(store)[0]) == ["0\n", "1\n", "2\n", "3\n"]
    store.close()


def test_durable(file: Path) -> None:
    """SQLite writes ahead and syncs at every commit, and overwrites what is deleted; only the owner may read."""
    store = Store(place_of(str(file)))
    with store.transaction(reading=True) as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "fullfsync", "secure_delete")
        ]
        assert found == ["wal", 2, 1, 1]
        assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}
    store.close()


def test_a_file_that_was_moved_away(file: Path) -> None:
    """What comes after a journal was moved or removed goes into a new one in its place, and not with the old one."""
    store = Store(place_of(str(file)))
    store.write(rows(asked("a")))
    file.rename(file.with_name("moved"))
    store.write(rows(asked("b")))
    assert refs(file) == ["b"]
    for path in file.parent.iterdir():
        path.unlink()
    store.write(rows(asked("c")))
    assert refs(file) == ["c"]
    store.close()


def foreign(file: Path) -> None:
    """Another program's database."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE notes (text)")


def marked(file: Path) -> None:
    """An empty database of a program that says so."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA application_id = 42")


def damage(file: Path, keep: int = 100) -> None:
    """A journal of which no more than the first bytes are as they were."""
    store = Store(place_of(str(file)))
    store.write(rows(asked("a"), said("a")))
    store.checkpoint()
    data = file.read_bytes()
    file.write_bytes(data[:keep] + b"\xff" * (len(data) - keep))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another program's": (foreign, "is the database of another program; name another file"),
    "another program's, empty": (marked, "is the database of another program; name another file"),
    "no database": (lambda file: file.write_text("notes" * 1000), "it is not a SQLite database, or damaged"),
    "damaged": (damage, "cannot be used: it is damaged; move it away"),
    "a folder": (lambda file: file.mkdir(), r"cannot be opened \(Is a directory\)"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_journal(file: Path, make: Callable[[Path], object], says: str) -> None:
    """What is no journal is refused in one sentence, for good, and not written to."""
    file.parent.mkdir()
    make(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(JournalError, match=rf"^journal {file} .*{says}") as caught:
        Store(place_of(str(file))).open()
    assert not caught.value.passing
    assert (file.read_bytes() if file.is_file() else None) == before


def test_damage_inside(file: Path) -> None:
    """Damage that opening does not meet is met by what is written, and said."""
    damage(file, keep=3 * 4096)  # a page each of the list of tables, the revision, and its index
    store = Store(place_of(str(file)))
    store.open()
    with pytest.raises(JournalError, match=r"it is damaged; move it away, or mend it"):
        store.write(rows(asked("b"), said("b")))


def test_a_lock(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else writes for long, writing fails, reading does not; then it goes on."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.01)
    store = Store(place_of(str(file)))
    store.write(rows(asked("a")))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="it is locked by another process") as caught:
            store.write(rows(asked("b")))
        assert caught.value.passing
        assert kept(store)[0] == ["a"]
    store.write(rows(asked("b")))
    assert kept(store)[0] == ["a", "b"]
    store.close()


def test_a_database_that_was_restarted(postgresql: str) -> None:
    """A connection that was lost while nothing was written costs nobody anything; what is wrong otherwise is said."""
    import psycopg

    store = Store(place_of(f"postgresql://postgres@/postgres?host={postgresql}"))
    with psycopg.connect(host=postgresql, user="postgres", dbname="postgres", autocommit=True) as admin:
        store.write(rows(asked("a")))
        admin.execute(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'faqwire'"
        )
        store.write(rows(asked("b")))
        assert kept(store)[0] == ["a", "b"]
        admin.execute("ALTER TABLE asks RENAME TO other")
        with pytest.raises(JournalError, match='relation "asks" does not exist'):
            store.write(rows(asked("c")))
    store.close()


URLS = {
    "mysql://u:secret@h/d": r"mysql:// is not supported; name a file",
    "postgresql://u:secret@h:port/d": r"the URL cannot be read",
    "postgresql://u:secret@127.0.0.1:1/d?password=secret": r"^journal postgresql://u:\*+@127.0.0.1:1/d cannot be",
}


@pytest.mark.parametrize(("url", "says"), URLS.items())
def test_places_that_are_none(url: str, says: str) -> None:
    """A URL that leads nowhere is refused, and its password is told to nobody."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(JournalError, match=says) as caught:
        Store(place_of(url)).open()
    assert "secret" not in str(caught.value)


def test_postgresql_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks psycopg is told what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(JournalError, match=r"install `faqwire\[postgresql\]`"):
        place_of("postgresql://h/d")


@pytest.mark.parametrize("name", ["100%.sqlite", "a b?c#d.sqlite", ":memory:", "é.sqlite"])
def test_names_of_files(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may have any name, and is where it was said to be."""
    monkeypatch.chdir(tmp_path)
    store = Store(place_of(name))
    store.write(rows(asked("a")))
    store.close()
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208 by name
    assert query(tmp_path / name, "SELECT count(*) FROM asks") == [(1,)]
