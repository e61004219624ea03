"""Guards `server.supervisor`: workers that cannot be kept alive, and workers that hang."""

import asyncio
import errno
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from intents.manifest import MANIFEST
from intents.store import CURRENT, current_folder
from server.settings import Settings
from server.supervisor import SILENT_SECONDS, Slot, Supervisor
from server.telemetry import WorkerState
from tests.server.conftest import Events
from tests.server.fakes import Clock
from tests.server.raw import UNSEEN, dial


class Running:
    """A supervisor under way.

    Attributes:
        supervisor: itself.
        announced: the address, once it has one.
        ended: its exit status, once it has one.
    """

    def __init__(self, settings: Settings) -> None:
        self.supervisor = Supervisor(settings)
        self.announced: asyncio.Queue[str] = asyncio.Queue()
        self._changed = asyncio.Event()
        show = self.supervisor._show

        def shows(slot: Slot, state: WorkerState) -> None:
            show(slot, state)
            self._changed.set()

        self.supervisor._show = shows  # type: ignore[method-assign]
        self.ended = asyncio.create_task(self.supervisor.run(self.announced.put_nowait))

    def pid(self, number: int) -> int:
        """The process id of a worker that lives."""
        process = self.supervisor._slots[number - 1].process
        assert process is not None
        return process.pid

    async def hears(self, number: int) -> None:
        """Wait until a worker has said something, and the supervisor has heard it."""
        process = self.supervisor._slots[number - 1].process
        assert process is not None
        assert process.stdout is not None
        said, feed = asyncio.Event(), process.stdout.feed_data

        def feeds(data: bytes) -> None:
            feed(data)  # whoever reads goes on before whoever waits for `said`
            said.set()

        process.stdout.feed_data = feeds  # type: ignore[assignment,method-assign]
        await said.wait()

    async def are(self, *states: WorkerState) -> None:
        """Wait until the workers are so."""
        while tuple(slot.state for slot in self.supervisor._slots) != states:
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def supervising(settings: Settings) -> AsyncIterator[Running]:
    """A supervisor of two workers, both of which serve; it ends with the test."""
    running = Running(settings.model_copy(update={"workers": 2, "drain_seconds": 5}))
    try:
        await running.are("running", "running")
        yield running
    finally:
        if not running.ended.done():
            running.supervisor._stop()
        await running.ended


@pytest.fixture
def ours(settings: Settings, shop_root: Path, tmp_path: Path) -> Settings:
    """Settings of a server whose index the test may spoil."""
    return settings.model_copy(update={"index": shutil.copytree(shop_root, tmp_path / "index", symlinks=True)})


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started again without delay, and given up when they have died twice."""
    monkeypatch.setattr("server.restarts.FIRST_SECONDS", 0.0)
    monkeypatch.setattr("server.restarts.PATIENCE", 2)


def critical(logs: Events) -> list[str]:
    """What an operator has to be woken for."""
    return [str(event["event"]) for event in logs if event["log_level"] == "critical"]


async def test_a_worker_is_given_up(ours: Settings, hasty: None, logs: Events) -> None:
    """What cannot be started again is given up loudly while the other serves on; SIGHUP gives it another chance."""
    current = ours.index / CURRENT
    async with supervising(ours) as running:
        url = await running.announced.get()
        target = current.readlink()
        current.unlink()
        os.kill(running.pid(1), signal.SIGKILL)
        await running.are("given_up", "running")
        assert critical(logs) == ["worker given up"]
        value = running.supervisor._metrics.registry.get_sample_value
        assert await asyncio.to_thread(value, "faqwire_workers", {"state": "given_up"}) == 1
        async with dial(url) as client:
            assert (await client.reply_to("1", UNSEEN))["type"] == "answer"
        current.symlink_to(target)
        os.kill(os.getpid(), signal.SIGHUP)
        await running.are("running", "running")
    assert await running.ended == 0


async def test_no_worker_is_left(ours: Settings, hasty: None, logs: Events) -> None:
    """With the last worker the server gives up, with an exit status that says so."""
    async with supervising(ours) as running:
        (ours.index / CURRENT).unlink()
        for number in (1, 2):
            os.kill(running.pid(number), signal.SIGKILL)
        assert await running.ended == 1
    assert critical(logs) == ["worker given up", "worker given up", "no worker is left"]


async def test_a_worker_that_hangs(settings: Settings, hasty: None, logs: Events, clock: Clock) -> None:
    """A worker that does not say any more that it works is killed, and another one takes its place."""
    async with supervising(settings) as running:
        hanging = running.pid(1)
        os.kill(hanging, signal.SIGSTOP)
        clock.now += 0.7 * SILENT_SECONDS
        await running.hears(2)
        clock.now += 0.7 * SILENT_SECONDS
        await running.are("restarting", "running")
        await running.are("running", "running")
        assert running.pid(1) != hanging
    assert critical(logs) == ["worker hangs, and is killed"]
    assert await running.ended == 0


def hang_loading(index: Path) -> None:
    """Have whoever opens an index wait for ever: its manifest is a pipe that nobody writes."""
    manifest = current_folder(index) / MANIFEST
    manifest.unlink()
    os.mkfifo(manifest)


async def test_a_first_worker_that_hangs_while_it_loads(ours: Settings, logs: Events) -> None:
    """A start that does not come to an end is ended after `start_seconds`, with an exit status that says so."""
    await asyncio.to_thread(hang_loading, ours.index)
    running = Running(ours.model_copy(update={"workers": 2, "start_seconds": 1.0}))
    assert await running.ended == 1
    assert running.announced.empty()
    [killed] = [event for event in logs if event["log_level"] == "critical"]
    assert killed["event"] == "worker does not begin to serve, and is killed"
    assert (killed["worker"], killed["seconds"]) == (1, 1.0)


async def test_a_later_worker_that_hangs_while_it_loads(ours: Settings, hasty: None, logs: Events) -> None:
    """One that takes another's place and hangs likewise counts as died; the rest serve on."""
    async with supervising(ours) as running:
        url = await running.announced.get()
        await asyncio.to_thread(hang_loading, ours.index)
        running.supervisor._settings = running.supervisor._settings.model_copy(update={"start_seconds": 1.0})
        os.kill(running.pid(1), signal.SIGKILL)
        await running.are("given_up", "running")
        async with dial(url) as client:
            assert (await client.reply_to("1", UNSEEN))["type"] == "answer"
    assert critical(logs) == ["worker does not begin to serve, and is killed", "worker given up"]
    assert await running.ended == 0


async def test_a_worker_that_does_not_stop(settings: Settings, logs: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop ends even where a worker does not: it is killed, and the exit status says so."""
    monkeypatch.setattr("server.supervisor.MARGIN_SECONDS", -4.0)
    async with supervising(settings) as running:
        os.kill(running.pid(2), signal.SIGSTOP)
    assert critical(logs) == ["workers do not stop, and are killed"]
    assert await running.ended == 1


async def test_whoever_asks_twice(settings: Settings) -> None:
    """A second Ctrl-C waits for nothing."""
    async with supervising(settings) as running:
        os.kill(running.pid(2), signal.SIGSTOP)
        running.supervisor._stop()
        running.supervisor._stop()
        assert await running.ended == 1


class Stubborn:
    """A system that starts no process for a while.

    Attributes:
        tried: set once it has refused.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried = asyncio.Event()
        monkeypatch.setattr("server.supervisor.asyncio.create_subprocess_exec", self._refuse)

    async def _refuse(self, *_: object, **__: object) -> None:
        self.tried.set()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


async def test_a_first_worker_that_cannot_be_started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system starts no process, the start ends, and says so."""
    Stubborn(monkeypatch)
    with pytest.raises(BlockingIOError):
        await Supervisor(settings.model_copy(update={"workers": 2})).run()


async def test_a_worker_that_cannot_be_started_again(
    settings: Settings, logs: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system starts no process for a while, it is tried again, as after a death."""
    async with supervising(settings) as running:
        with monkeypatch.context() as patched:
            stubborn = Stubborn(patched)
            os.kill(running.pid(1), signal.SIGKILL)
            await stubborn.tried.wait()
        await running.are("running", "running")
    assert [event["worker"] for event in logs if event["event"] == "worker cannot be started"]
    assert await running.ended == 0
