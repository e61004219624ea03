"""What the server's tests share: nothing may block the event loop, and one server for those that only ask."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from blockbuster import BlockingError, blockbuster_ctx
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from export.bundle import Bundle
from export.convert import export_model
from server.app import Server
from server.engine import Engine
from server.settings import Settings
from server.telemetry import Metrics
from server.websocket import Websocket
from tests.server.fakes import Clock, Device, HeldEngine, until

Events = list[MutableMapping[str, Any]]
ServerFactory = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture(autouse=True)
def nothing_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test when faqwire blocks a running event loop, even where the server survives the exception."""
    calls: list[str] = []

    class Recorded(BlockingError):
        def __init__(self, func: str) -> None:
            super().__init__(func)
            calls.append(func)

    monkeypatch.setattr("blockbuster.blockbuster.BlockingError", Recorded)
    with blockbuster_ctx(["server", "intents", "export"]):
        yield
    assert not calls, "the event loop was blocked"


class Ends:
    """How connections of the test's servers end.

    Attributes:
        given_up: a client was found too slow.
        lost: a connection has ended.
    """

    def __init__(self) -> None:
        self.given_up, self.lost = asyncio.Event(), asyncio.Event()

    async def closed(self, server: Server, left: int) -> None:
        """Wait until one has ended, and so many are left."""
        await self.lost.wait()
        await until(lambda: len(server.reception.connections) <= left)


@pytest.fixture
async def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Tells when connections end."""
    ends, give_up, connection_lost = Ends(), Websocket._give_up, Websocket.connection_lost

    def gives_up(websocket: Websocket) -> None:
        give_up(websocket)
        ends.given_up.set()

    def loses(websocket: Websocket, exc: Exception | None) -> None:
        connection_lost(websocket, exc)
        ends.lost.set()

    monkeypatch.setattr(Websocket, "_give_up", gives_up)
    monkeypatch.setattr(Websocket, "connection_lost", loses)
    return ends


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The event loop's own clock, which stands still until the test moves it."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


@pytest.fixture
def metrics() -> Metrics:
    """Where what happens is told."""
    return Metrics(CollectorRegistry())


@pytest.fixture
def caching(settings: Settings) -> Settings:
    """Settings of a server that keeps answers."""
    return settings.model_copy(update={"cache_size": 10})


@pytest.fixture(autouse=True)
def logs() -> Iterator[Events]:
    """What faqwire logs during the test, as events."""
    with capture_logs() as events:
        yield events


@pytest.fixture(autouse=True)
def nothing_is_dropped(caplog: pytest.LogCaptureFixture, logs: Events) -> Iterator[None]:
    """Fail the test when a task or a callback ends in an exception that nobody takes."""
    yield
    gc.collect(1)  # tasks tell when they are thrown away
    # asyncio tells its own log, and that of a server where one has been started.
    told = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    told += [str(event.get("problem")) for event in logs]
    assert not [message for message in told if re.search("never retrieved|[Ee]xception in", message)]


@pytest.fixture(scope="session")
def cross_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small cross-encoder that knows nothing."""
    from tests.export.models import make_model  # brings torch

    folder = tmp_path_factory.mktemp("cross")
    return export_model(str(make_model(folder / "model", labels=1)), folder / "bundle", variants=()).bundle


@pytest.fixture
async def server(start_server: ServerFactory) -> AsyncIterator[Server]:
    """A real server of the sample shop."""
    async with start_server() as server:
        yield server


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    """A device that holds its batches until the test ends them."""
    device = Device()
    yield device
    device.let_go()


@pytest.fixture
def held_engine(engine: Engine, device: Device) -> HeldEngine:
    """The real engine behind that device."""
    return HeldEngine(engine.encoder, engine.index, engine.search, device=device)


@pytest.fixture
def start_held(start_server: ServerFactory, held_engine: HeldEngine, device: Device) -> ServerFactory:
    """Start a real server whose encoder waits for the test; keyword arguments are settings."""

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[Server]:
        async with start_server(engine=held_engine, **changes) as server:
            try:
                yield server
            finally:
                device.let_go()

    return start
