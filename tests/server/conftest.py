"""What the server's tests share: nothing may block the event loop, and one server for those that only ask."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from server.app import Server
from server.engine import Engine
from tests.server.fakes import Device, HeldEngine

ServerFactory = Callable[..., Any]


@pytest.fixture(autouse=True)
def nothing_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test when faqwire blocks a running event loop, even where the server survives the exception."""
    calls: list[str] = []

    class Recorded(BlockingError):
        def __init__(self, func: str) -> None:
            super().__init__(func)
            calls.append(func)

    monkeypatch.setattr("blockbuster.blockbuster.BlockingError", Recorded)
    with blockbuster_ctx(["server", "intents", "export"]) as blockbuster:
        # Joins the lanes' threads when none of them has anything left to do.
        blockbuster.functions["threading.Lock.acquire"].can_block_in("concurrent/futures/thread.py", "shutdown")
        yield
    assert not calls, "the event loop was blocked"


@pytest.fixture
async def server(start_server: ServerFactory) -> AsyncIterator[Server]:
    """A real server of the sample shop."""
    async with start_server() as server:
        yield server


@pytest.fixture
async def device() -> Device:
    """A device that holds its batches."""
    return Device()


@pytest.fixture
def held_engine(engine: Engine, device: Device) -> HeldEngine:
    """The real engine, encoding when the test says so."""
    return HeldEngine(engine.encoder, engine.index, engine.search, device)


@pytest.fixture
def unseen() -> str:
    """A message that equals no phrasing, so that it has to be encoded."""
    return "pls tell me wheres the parcel i ordered on tuesday"
