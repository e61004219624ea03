"""Guards `faqwire journal` as a process: what it prints, what it asks, and what it refuses."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.journal.database import place_of
from server.journal.store import Store
from tests.server.cli.site import Site
from tests.server.journal.records import asked, refs, rows, said

COLUMNS = "ref,at,connection,visitor,text,decision,entry,confidence,confirmation,total_ms,index_version,helpful,comment"


@pytest.fixture
def place(tmp_path: Path) -> Site:
    """A working directory with a journal, and neither a model nor an index."""
    site = Site(tmp_path)
    for name in ("home", "tmp", "var"):
        (tmp_path / name).mkdir()
    (tmp_path / "faqwire.toml").write_text('journal = "var/journal.sqlite"\n', encoding="utf-8")
    store = Store(place_of(str(tmp_path / "var/journal.sqlite")))
    store.write(
        rows(
            asked("a", text='=cmd|"calc"'),
            asked("b", visitor="v2", decision="no_match", entry=None, text="naïve,\nquestion"),
            said("a", comment="+1"),
            at=datetime(2026, 11, 23, 8, 30, tzinfo=UTC),
        )
    )
    store.write(rows(asked("c"), said("c", helpful=False), at=datetime(2026, 11, 24, tzinfo=UTC)))
    store.close()
    return site


def journal_of(place: Site) -> Path:
    """Its file."""
    return place.folder / "var/journal.sqlite"


def test_count(place: Site) -> None:
    """A row for all days as a table, or one for each as JSON."""
    done = place.run("journal", "count")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["day", "asks", "answer", "clarify", "no_match", "handoff", "helpful", "unhelpful"],
        ["all", "3", "2", "0", "1", "0", "1", "1"],
    ]
    done = place.run("journal", "count", "--by-day", "--json")
    monday, tuesday = map(json.loads, done.stdout.splitlines())
    assert monday == {
        "day": "2026-11-23",
        "asks": 2,
        "answer": 1,
        "clarify": 0,
        "no_match": 1,
        "handoff": 0,
        "helpful": 1,
        "unhelpful": 0,
    }
    assert (tuesday["day"], tuesday["unhelpful"]) == ("2026-11-24", 1)
    done = place.run("journal", "count", "--from", "2026-11-24", "--to", "2026-11-24", "--json")
    assert json.loads(done.stdout)["asks"] == 1


def test_export(place: Site) -> None:
    """JSON lines have everything as it is, in the order it came; a range of days has its own."""
    done = place.run("journal", "export", "--to", "2026-11-23")
    first, second = map(json.loads, done.stdout.splitlines())
    assert ",".join(first) == COLUMNS
    assert (first["at"], first["text"], first["comment"]) == ("2026-11-23T08:30:00.000+00:00", '=cmd|"calc"', "+1")
    assert (second["text"], second["entry"], second["helpful"]) == ("naïve,\nquestion", None, None)
    done = place.run("journal", "export", "feedback", "--from", "2026-11-24")
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == {
        "ref": "c",
        "at": "2026-11-24T00:00:00.000+00:00",
        "connection": "c1",
        "visitor": "v1",
        "helpful": False,
        "comment": None,
    }


def test_export_to_a_spreadsheet(place: Site) -> None:
    """CSV has a header, and no cell that a spreadsheet would run."""
    done = place.run("journal", "export", "--format", "csv", "-o", "asks.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = (place.folder / "asks.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == COLUMNS
    found = list(csv.DictReader(io.StringIO(text)))
    assert [(row["text"], row["comment"]) for row in found] == [
        ('\'=cmd|"calc"', "'+1"),
        ("naïve,\nquestion", ""),
        ("where is my order", ""),
    ]


def test_erase(place: Site) -> None:
    """A visitor's records are erased once that has been confirmed, and no others."""
    file = journal_of(place)
    asked_first = place.run("journal", "erase", "--visitor", "v1", stdin="n\n")
    assert "Erase 2 asks and 2 feedbacks from " in asked_first.stderr
    assert (asked_first.returncode, refs(file)) == (130, ["a", "b", "c"])
    done = place.run("journal", "erase", "--visitor", "v1", stdin="y\n")
    assert done.returncode == 0
    assert done.stderr.endswith("journal.sqlite: erased 2 asks and 2 feedbacks\n")
    assert (refs(file), refs(file, "feedback")) == (["b"], [])
    done = place.run("journal", "erase", "--from", "2026-11-01", "--to", "2026-11-30", "--yes")
    assert done.stderr.endswith("journal.sqlite: erased 1 asks and 0 feedbacks\n")
    assert refs(file) == []
    assert not [path for path in file.parent.iterdir() if b"question" in path.read_bytes()]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("erase",), "name what to erase: --visitor, --from or --to"),
        (("count", "--from", "2026-11-24", "--to", "2026-11-23"), "--to is before --from"),
        (("count", "--from", "yesterday"), "'yesterday' does not match the format"),
    ],
)
def test_wrong_use(place: Site, args: tuple[str, ...], says: str) -> None:
    """What makes no sense is answered with how to use it."""
    done = place.run("journal", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--journal", "off"), "no journal is set; name one with --journal, or with `journal` in the settings"),
        (("--journal", "var/none.sqlite"), "none.sqlite does not exist; it is made when a server"),
        (("--journal", "faqwire.toml"), "it is not a SQLite database, or damaged; move it away"),
        (("--journal", "mysql://u:secret@h/d"), "mysql:// is not supported"),
    ],
)
def test_no_journal(place: Site, args: tuple[str, ...], says: str) -> None:
    """One sentence, exit status 1, and everything as it was."""
    before = place.snapshot()
    done = place.run("journal", "export", "-o", "new.jsonl", *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("faqwire: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert "secret" not in done.stderr
    assert place.snapshot() == before


def test_an_export_never_harms_the_journal(place: Site) -> None:
    """What would be written over the journal, or beside it, is refused, and everything is still there."""
    before = journal_of(place).read_bytes()
    done = place.run("journal", "export", "-o", "var/../var/journal.sqlite")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("is the journal itself; name another file to write\n")
    assert journal_of(place).read_bytes() == before


def test_an_export_that_fails_leaves_the_file_that_was_there(place: Site) -> None:
    """A file appears when it is whole, also in the place of another."""
    out = place.folder / "out.jsonl"
    out.write_text("of yesterday\n", encoding="utf-8")
    done = place.run("journal", "export", "--from", "2026-11-24", "--to", "2026-11-23", "-o", "out.jsonl")
    assert done.returncode == 2
    assert out.read_text(encoding="utf-8") == "of yesterday\n"
    assert place.run("journal", "export", "-o", "out.jsonl").returncode == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 3


def test_the_last_day_of_all(place: Site) -> None:
    """Nothing lies beyond it."""
    done = place.run("journal", "count", "--to", "9999-12-31", "--json")
    assert json.loads(done.stdout)["asks"] == 3


@pytest.mark.parametrize(
    ("name", "says"), [("var", "is not a file"), ("empty", "is empty"), ("nowhere", "does not exist")]
)
def test_what_is_no_journal(place: Site, name: str, says: str) -> None:
    """It is refused, and left as it is."""
    (place.folder / "empty").touch()
    done = place.run("journal", "count", "--journal", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert not (place.folder / "empty").stat().st_size
