"""Guards `server.journal` as the server uses it, on real databases, real files and real processes."""

import asyncio
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from server.errors import JournalError, NotStored
from server.journal import Journal, database, writer
from server.journal.database import place_of
from server.journal.reading import Selection, read
from server.journal.schema import asks
from server.journal.store import Store
from server.telemetry import Metrics
from tests.server.fakes import until
from tests.server.journal.records import NOW, asked, query, refs, rows, said, settings_for
from tests.server.journal.test_store import damage
from tests.server.journal.test_writer import Scripted

ROOT = Path(__file__).parents[3]
Open = Callable[..., AbstractAsyncContextManager[Journal]]


@pytest.fixture
def opened(metrics: Metrics) -> Open:
    """Open a journal, and close it; keyword arguments are settings."""

    @asynccontextmanager
    async def start(place: Path | str, **changes: Any) -> AsyncIterator[Journal]:
        journal = await Journal.open(settings_for(place, **changes), metrics.journal, now=lambda: NOW)
        try:
            yield journal
        finally:
            assert await journal.close(30)

    return start


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Somebody else writes, and does not come to an end."""
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def fate(metrics: Metrics, kind: str, what: str) -> float | None:
    """How many records met a fate."""
    return metrics.registry.get_sample_value("faqwire_journal_records_total", {"kind": kind, "fate": what})


def asks_of(journal: str) -> list[dict[str, Any]]:
    """All asks of a journal."""
    store = Store(place_of(journal))
    found = list(read(store, asks, Selection()))
    store.close()
    return found


async def test_what_is_kept(opened: Open, journal: str, metrics: Metrics) -> None:
    """Asks and feedback are in the database, with the time, and without addresses and numbers."""
    async with opened(journal) as kept:
        kept.asked(asked("a", text="mail anna@example.com"))
        await kept.feedback(said("a", comment="or call 555 123 4567"))
        assert kept.degraded is None
    (row,) = await asyncio.to_thread(asks_of, journal)
    assert (row["at"], row["text"], row["comment"]) == (NOW, "mail [email]", "or call [phone]")
    assert (fate(metrics, "ask", "stored"), fate(metrics, "feedback", "stored")) == (1, 1)


@pytest.mark.parametrize(("policy", "kept"), [("off", None), ("redacted", "[email]"), ("full", "a@b.com")])
async def test_policies(opened: Open, file: Path, policy: str, kept: str | None) -> None:
    """Texts and comments are left out, redacted, or kept as they are."""
    async with opened(file, journal_text=policy) as journal:
        journal.asked(asked("a", text="a@b.com"))
        await journal.feedback(said("a", comment="a@b.com"))
    assert query(file, "SELECT text, comment FROM asks JOIN feedback USING (ref)") == [(kept, kept)]


async def test_asks_alone_are_written(opened: Open, file: Path, metrics: Metrics) -> None:
    """Asks need no feedback and no end to come into the file."""
    async with opened(file) as journal:
        journal.asked(asked("a"))
        await until(lambda: fate(metrics, "ask", "stored") == 1)
        assert refs(file) == ["a"]


async def test_the_close_writes_what_waits(opened: Open, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given before the close is in the file after it; what comes later is not kept, and feedback is told."""
    monkeypatch.setattr(writer, "LINGER_SECONDS", 1e6)
    async with opened(file) as journal:
        for number in range(2500):
            journal.asked(asked(f"{number}"))
    journal.asked(asked("late"))
    with pytest.raises(NotStored, match="is being closed"):
        await journal.feedback(said("late"))
    assert refs(file) == [f"{number}" for number in range(2500)]


async def test_a_lock(opened: Open, file: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the lock asks go on, feedback is refused, and it shows; then all asks are written."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.01)
    async with opened(file) as journal:
        with locked(file):
            journal.asked(asked("a"))
            with pytest.raises(NotStored, match="it is locked by another process"):
                await journal.feedback(said("a"))
            journal.asked(asked("b"))
            assert journal.degraded is not None
            assert metrics.registry.get_sample_value("faqwire_degraded", {"reason": "journal"}) == 1
        await journal.feedback(said("b"))
        await until(lambda: journal.degraded is None)
        assert metrics.registry.get_sample_value("faqwire_degraded", {"reason": "journal"}) == 0
    assert (refs(file), refs(file, "feedback")) == (["a", "b"], ["b"])


async def test_a_lock_at_the_start(opened: Open, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that another process is making does not keep a server from starting, and is used when it is there."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.01)
    file.parent.mkdir()
    with locked(file):
        journal = await Journal.open(settings_for(file), Metrics(CollectorRegistry()).journal)
        assert journal.degraded is not None
        journal.asked(asked("a"))
    await until(lambda: journal.degraded is None)
    assert await journal.close(30)
    assert refs(file) == ["a"]


async def test_more_than_can_be_written(opened: Open, file: Path, metrics: Metrics) -> None:
    """Asks that find no room are lost and counted, at once; those that did are written."""
    async with opened(file, journal_queue=5) as journal:
        with locked(file):
            for number in range(12):
                journal.asked(asked(f"{number}"))
            assert journal.degraded == "5 records (ask) wait to be written"
    assert refs(file) == ["0", "1", "2", "3", "4"]
    assert fate(metrics, "ask", "queue_full") == 7


async def test_cancelling(opened: Open, file: Path) -> None:
    """Whoever waits for a feedback may be cancelled; it is stored all the same, and nobody else is disturbed."""
    async with opened(file) as journal:
        waiting = asyncio.create_task(journal.feedback(said("a")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await journal.feedback(said("b"))
    assert refs(file, "feedback") == ["a", "b"]


def grow_old(file: Path) -> None:
    """A journal with an ask of 31 days ago and one of 29."""
    store = Store(place_of(str(file)))
    store.write(rows(asked("old", text="an old secret"), at=NOW - timedelta(days=31)))
    store.write(rows(asked("young"), at=NOW - timedelta(days=29)))
    store.close()


async def test_old_records_go_at_the_start(opened: Open, file: Path) -> None:
    """What is older than the days that are kept is deleted when a server starts, and is not in the file any more."""
    await asyncio.to_thread(grow_old, file)
    async with opened(file, journal_days=None) as journal:
        await journal.feedback(said("a"))
    assert refs(file) == ["old", "young"]
    async with opened(file, journal_days=30) as journal:
        await until(lambda: refs(file) == ["young"])
    assert not [path for path in file.parent.iterdir() if b"an old secret" in path.read_bytes()]


async def test_a_disk_that_hangs(metrics: Metrics) -> None:
    """A close does not wait for ever; whoever waits for a feedback is told that nobody knows."""
    store = Scripted(gate=threading.Semaphore(0))
    journal = await Journal.over(store, settings_for("unused"), metrics.journal, required=True)
    waiting = asyncio.create_task(journal.feedback(said("a")))
    await until(store.writing.is_set)
    assert not await journal.close(0.01)
    with pytest.raises(NotStored, match="closed before this was written"):
        await waiting
    assert store.gate is not None
    store.gate.release(9)
    assert await journal.close(30)


async def test_no_journal(metrics: Metrics) -> None:
    """A server without the setting has no journal to open."""
    with pytest.raises(JournalError, match="no journal is set"):
        await Journal.open(settings_for("off"), metrics.journal)


async def test_a_damaged_journal(opened: Open, file: Path) -> None:
    """A server does not start on a damaged journal; a worker that takes another's place does, degraded."""
    await asyncio.to_thread(damage, file, 100)
    with pytest.raises(JournalError, match=rf"^journal {file} cannot be used: it is damaged; move it away"):
        await Journal.open(settings_for(file), Metrics(CollectorRegistry()).journal)
    journal = await Journal.open(settings_for(file), Metrics(CollectorRegistry()).journal, required=False)
    assert journal.degraded is not None
    journal.asked(asked("b"))
    with pytest.raises(NotStored, match="it is damaged"):
        await journal.feedback(said("b"))
    move_away(file)
    await journal.feedback(said("c"))
    assert await journal.close(30)
    assert (refs(file), refs(file, "feedback")) == (["b"], ["c"])


async def test_damage_that_shows_later(opened: Open, file: Path) -> None:
    """A journal that turns out to be damaged takes no feedback and stops nobody."""
    await asyncio.to_thread(damage, file, 3 * 4096)
    async with opened(file) as journal:
        journal.asked(asked("b"))
        with pytest.raises(NotStored, match="it is damaged"):
            await journal.feedback(said("b"))
        assert journal.degraded is not None


def move_away(file: Path) -> None:
    """What the sentence about a damaged journal says to do."""
    for part in sorted(file.parent.glob(f"{file.name}*")):
        part.rename(part.with_name(f"damaged-{part.name}"))


def test_nothing_accepted_is_lost(file: Path) -> None:
    """Two processes that write to one file and are killed (-9) lose no feedback that either has accepted."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.server.journal.worker", str(file), name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for name in "ab"
    ]
    accepted = []
    for process in processes:
        assert process.stdout is not None
        accepted += [process.stdout.readline().strip() for _ in range(50)]
    for process in processes:
        process.kill()
    for process in processes:
        left, _ = process.communicate()
        accepted += [line for line in left.split("\n")[:-1] if line]
    assert len(accepted) >= 100
    assert set(accepted) <= set(refs(file, "feedback"))
    assert query(file, "PRAGMA integrity_check") == [("ok",)]


def test_a_full_disk(file: Path) -> None:
    """On a full disk feedback is refused and asks go on; what was accepted is there, and with room all goes on."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.server.journal.full_disk", str(file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert "its disk fails or is full" in told["reason"] or "its disk is full" in told["reason"]
    assert told["degraded"] == told["reason"]
    assert (told["closed"], told["then"]) == (True, None)
    assert told["accepted"][-1] == "afterwards"
    assert "the journal is degraded; messages are answered all the same" in done.stdout + done.stderr
    assert set(told["accepted"]) <= set(refs(file, "feedback"))
    assert refs(file)[-1] == "while it is full"
    assert query(file, "PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder, mount = tmp_path / "disk", shutil.which("mount")
    folder.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run([str(shutil.which("umount")), str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Take all the room that a file system has left."""
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"x" * 4096)


async def say_until_refused(journal: Journal) -> str:
    """Give asks and feedback for as long as they are accepted; the sentence of the first that is not."""
    for number in range(1000):
        journal.asked(asked(f"{number}", text="x" * 1000))
        try:
            await journal.feedback(said(f"{number}"))
        except NotStored as exc:
            return str(exc)
    return ""


async def test_a_disk_that_is_really_full(opened: Open, small_disk: Path) -> None:
    """The same on a file system that has no room left, and then has again; a start on it is no failure."""
    file, ballast = small_disk / "journal.sqlite", small_disk / "ballast"
    async with opened(file) as journal:
        await journal.feedback(said("before"))
        fill(ballast)
        assert re.search("its disk (is|fails or is) full", await say_until_refused(journal))
        assert journal.degraded is not None
    new = await Journal.open(settings_for(small_disk / "new" / "journal.sqlite"), Metrics(CollectorRegistry()).journal)
    assert new.degraded is not None
    ballast.unlink()
    await new.feedback(said("after"))
    assert await new.close(30)
    async with opened(file) as journal:
        await journal.feedback(said("after"))
    assert {"before", "after"} <= set(refs(file, "feedback"))
