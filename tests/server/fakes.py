"""Fakes: a device that runs a batch when the test says so, and a clock that stands still until it is moved."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from export.runtime.tokens import Tokens
from server.engine import Engine, Searched

# Some seconds' worth; a timeout from outside would be lost among the loop's callbacks.
MANY_TURNS = 100_000


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch that has reached the device and stays there until it is ended."""

    items: list[Any]
    lane: int
    _end: "Future[Sequence[Any] | None]" = field(default_factory=Future)

    @property
    def ended(self) -> bool:
        """Whether the test has ended it."""
        return self._end.done()

    def finish(self, results: Sequence[Any] | None = None) -> None:
        """End it with these results, or with what the device gives by itself."""
        self._end.set_result(results)

    def fail(self, problem: BaseException) -> None:
        """End it with an exception."""
        self._end.set_exception(problem)

    def wait(self) -> Sequence[Any] | None:
        """Wait for its end, in the lane's thread."""
        return self._end.result()


def echo(item: Any) -> str:
    """What the fake device makes of an item."""
    return f"vector of {item}"


class Device:
    """Holds every batch in its lane's thread until the test ends it; made in a running event loop.

    Attributes:
        arrived: batches that the test has not looked at yet.
        seen: every item that ever arrived, in order.
    """

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Batch] = asyncio.Queue()
        self.seen: list[Any] = []
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._held: list[Batch] = []
        self._holding = True

    def run(self, items: Sequence[Any], lane: int) -> Sequence[Any]:
        """What the micro-batcher calls in a lane's thread."""
        batch = Batch(list(items), lane)
        with self._lock:
            self._held.append(batch)
            if not self._holding:
                batch.finish()
        self._loop.call_soon_threadsafe(self._arrive, batch)
        results = batch.wait()
        return [echo(item) for item in items] if results is None else results

    def let_go(self) -> None:
        """End what is held and hold no more, so that a test can end, also where it failed."""
        with self._lock:
            self._holding = False
            for batch in self._held:
                if not batch.ended:
                    batch.finish()

    def _arrive(self, batch: Batch) -> None:
        self.seen += batch.items
        self.arrived.put_nowait(batch)


@dataclass(frozen=True)
class HeldEngine(Engine):
    """The real engine behind a device that holds it: a batch is encoded when the test finishes it."""

    device: Device

    def retrieve(self, batch: Sequence[Tokens], lane: int) -> list[Searched]:
        """Wait for the test, then encode and search."""
        self.device.run(batch, lane)
        return super().retrieve(batch, lane)


class Clock:
    """Stands in for an event loop's `time`: it stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go round until the condition holds; no clock is involved, only turns of the loop."""
    for _ in range(MANY_TURNS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("what was waited for never came")
