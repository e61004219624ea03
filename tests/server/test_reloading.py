"""Guards `server.reloading`: another index takes over between two messages, or is refused; no answer is lost."""

import asyncio
import gc
import shutil
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from export.sealed import seal
from intents.entries import Faq
from intents.index import FAQ
from intents.manifest import MANIFEST, read_index_manifest
from intents.store import CURRENT, current_folder, use_version, version_folder
from server.app import Server
from server.engine import Engine, load_engine
from server.reloading import _current_version
from server.settings import Settings
from tests.server.conftest import Events, ServerFactory
from tests.server.fakes import Device, HeldEngine, sample, until
from tests.server.raw import UNSEEN, Raw, dial, get

SECOND = "20991231T235959000Z-00000000"
NEW_ANSWER = "It has moved to another page."
QUESTION = "Where is my order?"


@pytest.fixture
def root(shop_root: Path, tmp_path: Path) -> Path:
    """The shop's index with a second version, in which one answer is another; the first is current."""
    root = shutil.copytree(shop_root, tmp_path / "index", symlinks=True)
    folder = shutil.copytree(current_folder(root), version_folder(root, SECOND))
    faq = msgspec.json.decode((folder / FAQ).read_bytes(), type=Faq)
    entries = tuple(
        msgspec.structs.replace(entry, answer=NEW_ANSWER) if entry.id == "track-order" else entry
        for entry in faq.entries
    )
    (folder / FAQ).write_bytes(msgspec.json.encode(msgspec.structs.replace(faq, entries=entries)))
    manifest = read_index_manifest(current_folder(root), root)
    seal(folder, msgspec.structs.replace(manifest, version=SECOND), MANIFEST)
    return root


@pytest.fixture
def ours(settings: Settings, root: Path) -> Settings:
    """Settings of a server of that index, which looks at it only when it is told to."""
    return settings.model_copy(update={"index": root, "index_poll_seconds": None})


class Reloaded:
    """A server of the index, and when it has done what it was told."""

    def __init__(self, server: Server) -> None:
        self.server = server
        assert server._reloader is not None
        self._reloader = server._reloader
        self._done = asyncio.Event()
        tell = self._reloader._tell

        def tells(problem: str | None) -> None:
            tell(problem)
            self._done.set()

        self._reloader._tell = tells  # type: ignore[method-assign]

    async def done(self) -> None:
        """Wait until the next reload has ended."""
        await self._done.wait()
        self._done.clear()

    async def reload(self) -> None:
        """Reload, and wait for the end."""
        self.server.reload()
        await self.done()

    def count(self, result: str) -> float | None:
        """How many reloads ended so."""
        return sample(self.server._metrics, "reloads_total", result=result)


@asynccontextmanager
async def serving(settings: Settings, engine: Engine | None = None) -> AsyncIterator[Reloaded]:
    """A server that can be told to reload."""
    server = Server(engine if engine is not None else await asyncio.to_thread(load_engine, settings), settings)
    await server.start()
    try:
        yield Reloaded(server)
    finally:
        await server.stop()


async def served(client: Raw) -> tuple[str, str]:
    """Version and text that a question is answered with."""
    answer = await client.reply_to("1", QUESTION)
    return answer["index"], answer["text"]


async def test_another_version_is_picked_up(ours: Settings, root: Path, logs: Events) -> None:
    """Once another version is current, the next message gets its answer; the connection stays."""
    polling = ours.model_copy(update={"index_poll_seconds": 0.1, "cache_size": 10})
    async with serving(polling) as reloaded, dial(reloaded.server) as client:
        first, text = await served(client)
        assert text != NEW_ANSWER
        await asyncio.to_thread(use_version, root, SECOND)
        await reloaded.done()
        assert await served(client) == (SECOND, NEW_ANSWER)
        assert (await get(reloaded.server, "/readyz")).facts["index"] == SECOND
        assert sample(reloaded.server._metrics, "index_in_use", version=SECOND) == 1
        assert sample(reloaded.server._metrics, "index_in_use", version=first) == 0
        assert reloaded.count("swapped") == 1
        async with dial(reloaded.server) as later:
            assert later.welcome["index"] == SECOND
    assert [event["index"] for event in logs if event["event"] == "reloaded"] == [SECOND]


async def test_models_are_kept(ours: Settings, root: Path) -> None:
    """A reload loads no model that has not changed, and what batches take is still known."""
    async with serving(ours) as reloaded:
        server = reloaded.server
        before, costs = server._engine, server._running.costs
        await asyncio.to_thread(use_version, root, SECOND)
        await reloaded.reload()
        assert server._engine is not before
        assert server._engine.encoder is before.encoder
        assert server._running.costs == costs


def test_a_model_that_has_changed(ours: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that is another one by now is loaded."""
    bundle = engine.encoder.bundle
    other = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, seal="0" * 64))
    assert load_engine(ours, engine).encoder is engine.encoder
    monkeypatch.setattr(engine.encoder, "bundle", other)
    assert load_engine(ours, engine).encoder is not engine.encoder


async def test_nothing_has_changed(ours: Settings, logs: Events) -> None:
    """Who asks for a reload without a reason is told so, and nothing happens."""
    async with serving(ours) as reloaded:
        before = reloaded.server._engine
        await reloaded.reload()
        assert reloaded.server._engine is before
        assert reloaded.count("unchanged") == 1
    assert "nothing has changed" in [event["event"] for event in logs]


def damage(root: Path) -> None:
    """One byte of the entries is another."""
    file = version_folder(root, SECOND) / FAQ
    file.write_bytes(file.read_bytes().replace(b"page", b"pgae"))


def cut(root: Path) -> None:
    """A file is missing."""
    (version_folder(root, SECOND) / "vectors.npy").unlink()


def of_the_future(root: Path) -> None:
    """It was built by a newer faqwire."""
    folder = version_folder(root, SECOND)
    manifest = read_index_manifest(folder, root)
    seal(folder, msgspec.structs.replace(manifest, format=manifest.format + 1), MANIFEST)


def of_another_model(root: Path) -> None:
    """It was built with another model."""
    folder = version_folder(root, SECOND)
    seal(folder, msgspec.structs.replace(read_index_manifest(folder, root), model_fingerprint="f" * 64), MANIFEST)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage, "is damaged: its sha256 is not the one in the manifest"),
        (cut, "vectors.npy is missing"),
        (of_the_future, "upgrade faqwire"),
        (of_another_model, "was built with another model"),
    ],
)
async def test_a_bad_index_is_refused(
    ours: Settings, root: Path, logs: Events, spoil: Callable[[Path], None], reason: str
) -> None:
    """It is said loudly what is wrong, and the old one serves on; a good one takes over later, and all is well."""
    async with serving(ours) as reloaded, dial(reloaded.server) as client:
        server = reloaded.server
        first = await served(client)
        good = (version_folder(root, SECOND)).with_name("good")
        shutil.copytree(version_folder(root, SECOND), good)
        await asyncio.to_thread(spoil, root)
        (root / CURRENT).unlink()
        (root / CURRENT).symlink_to(version_folder(root, SECOND))
        await reloaded.reload()
        assert await served(client) == first
        assert reloaded.count("refused") == 1
        assert sample(server._metrics, "degraded", reason="stale_index") == 1
        ready = await get(server, "/readyz")
        assert ready.status == 200
        assert reason in ready.facts["degraded"]
        [refused] = [event for event in logs if event["log_level"] == "error"]
        assert reason in refused["reason"]
        shutil.rmtree(version_folder(root, SECOND))
        good.rename(version_folder(root, SECOND))
        await reloaded.reload()
        assert await served(client) == (SECOND, NEW_ANSWER)
        assert sample(server._metrics, "degraded", reason="stale_index") == 0
        assert (await get(server, "/readyz")).facts["degraded"] is None


async def test_what_was_refused_is_not_tried_again(ours: Settings, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad index is looked at once, not every second; and one that has gone serves on from memory."""
    looks = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def look(root: Path) -> str | None:
        loop.call_soon_threadsafe(looks.release)
        return _current_version(root)

    monkeypatch.setattr("server.reloading._current_version", look)
    polling = ours.model_copy(update={"index_poll_seconds": 0.01})
    async with serving(polling) as reloaded, dial(reloaded.server) as client:
        first = await served(client)
        shutil.rmtree(root)
        await reloaded.done()
        for _ in range(looks._value + 3):
            await looks.acquire()
        assert reloaded.count("refused") == 1
        assert await served(client) == first


async def test_messages_in_flight_end_with_what_they_began_with(
    ours: Settings, root: Path, engine: Engine, device: Device
) -> None:
    """A message that is on the device when the index changes is answered from the old one; the next from the new."""
    held = HeldEngine(
        engine.encoder, (await asyncio.to_thread(load_engine, ours, engine)).index, engine.search, device=device
    )
    async with serving(ours, held) as reloaded, dial(reloaded.server) as client:
        await client.ask("old", UNSEEN)
        batch = await device.arrived.get()
        await asyncio.to_thread(use_version, root, SECOND)
        await reloaded.reload()
        await client.ask("new", QUESTION)
        new = await client.receive()
        assert (new["id"], new["index"]) == ("new", SECOND)
        batch.finish()
        old = await client.receive()
        assert (old["id"], old["index"]) == ("old", held.index.manifest.version)


async def test_the_old_index_goes(ours: Settings, root: Path) -> None:
    """Nothing holds on to an index that has been replaced: memory does not grow from reload to reload."""
    async with serving(ours) as reloaded, dial(reloaded.server) as client:
        server = reloaded.server
        await client.reply_to("1", UNSEEN)
        await asyncio.to_thread(use_version, root, SECOND)
        gc.collect()
        gc.disable()
        try:
            old = weakref.ref(server._engine.index)
            await reloaded.reload()
            retiring = [chore for chore in server._chores if "_retire" in repr(chore)]
            await asyncio.gather(*retiring)
            await client.reply_to("2", UNSEEN)
            await until(lambda: old() is None)  # the thread that has loaded the other one may not have ended quite
        finally:
            gc.enable()


async def test_ten_reloads_and_a_drain_under_load(ours: Settings, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that never pause lose no question, whatever is swapped beneath them; nor when the server stops."""
    monkeypatch.setattr("server.draining.GRACE_SECONDS", 10.0)  # they go by themselves, on a slow machine later
    seen: Counter[str] = Counter()

    async def asks(client: Raw, number: int) -> None:
        """Ask until it is time to go, two at a time; whoever is told to go waits for its replies first."""
        in_flight, sent, going = 0, 0, False
        while in_flight or not going:
            while in_flight < 2 and not going:
                await client.ask(f"{sent}", f"{UNSEEN} {number} {sent}")
                in_flight, sent = in_flight + 1, sent + 1
            message: dict[str, Any] = await client.receive()
            if message["type"] == "going_away":
                going = True
                continue
            assert message["type"] == "answer", message
            in_flight -= 1
            seen[message["index"]] += 1

    async with serving(ours) as reloaded, dial(reloaded.server) as one, dial(reloaded.server) as two:
        versions = [one.welcome["index"], SECOND]
        load = [asyncio.create_task(asks(client, number)) for number, client in enumerate((one, two))]
        for turn in range(10):
            await asyncio.to_thread(use_version, root, versions[(turn + 1) % 2])
            await reloaded.reload()
        assert reloaded.count("swapped") == 10
        stopping = asyncio.create_task(reloaded.server.stop())
        await asyncio.gather(*load)
        assert set(seen) == set(versions)
    assert await stopping


def test_reload_before_start(ours: Settings, engine: Engine) -> None:
    """A server that does not run cannot reload."""
    with pytest.raises(RuntimeError, match="has not been started"):
        Server(engine, ours).reload()


async def test_a_failure_nobody_thought_of(
    start_server: ServerFactory, logs: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug while loading is logged with its traceback, and the old index serves on."""
    async with start_server() as server, dial(server) as client:
        reloaded = Reloaded(server)
        monkeypatch.setattr(reloaded._reloader, "_load", lambda *_: 1 / 0)
        await reloaded.reload()
        assert reloaded.count("refused") == 1
        assert (await client.reply_to("1", QUESTION))["type"] == "answer"
    assert "reload failed" in [event["event"] for event in logs]
