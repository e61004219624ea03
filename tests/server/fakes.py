"""Fakes: devices and lanes that run a batch when the test says so, and a clock that stands still until it is moved."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from typing import Any

from export.runtime.tokens import Tokens
from server.batching import Batch as Running
from server.batching import MicroBatcher
from server.budget import CostModel
from server.engine import Engine, Searched
from server.serving import Serving
from server.settings import Settings
from server.telemetry import Metrics

# A day on which every entry of the sample shop is valid.
EVERY_DAY = date(2026, 11, 23)
# Who waits in vain is told after as many turns of the loop, and seconds: threads, disks and other processes may take
# long where the loop's turns are quick. A timeout from outside would be lost among the loop's callbacks.
MANY_TURNS = 100_000
MANY_SECONDS = 30.0


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
    """What a fake device makes of an item."""
    return f"vector of {item}"


def echo_all(items: Sequence[Any]) -> list[str]:
    """What a fake device makes of a batch."""
    return [echo(item) for item in items]


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

    def hold(self, items: Sequence[Any], lane: int) -> Sequence[Any] | None:
        """Hold a batch in the calling thread; what the test ends it with."""
        batch = Batch(list(items), lane)
        with self._lock:
            self._held.append(batch)
            if not self._holding:
                batch.finish()
        self._loop.call_soon_threadsafe(self._arrive, batch)
        return batch.wait()

    def run(self, items: Sequence[Any], lane: int) -> Sequence[Any]:
        """What a micro-batcher calls in a lane's thread."""
        results = self.hold(items, lane)
        return echo_all(items) if results is None else results

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
    """The real engine behind devices that hold it: a batch is run when the test finishes it.

    Attributes:
        device: holds what is encoded; None lets it run.
        confirming: holds what the cross-encoder reads; None lets it run.
    """

    device: Device | None = None
    confirming: Device | None = None

    def retrieve(self, batch: Sequence[Tokens], lane: int) -> list[Searched]:
        """Wait for the test, then encode and search."""
        if self.device is not None:
            self.device.hold(batch, lane)
        return super().retrieve(batch, lane)

    def score(self, batch: Sequence[Tokens], lane: int) -> list[float]:
        """Wait for the test, then read the pairs, unless it says itself what comes of them."""
        given = None if self.confirming is None else self.confirming.hold(batch, lane)
        return super().score(batch, lane) if given is None else list(given)


class Clock:
    """Stands in for an event loop's `time`: it stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now


class Steady(CostModel):
    """A device of which it is known for sure what it takes.

    Args:
        batch: seconds for any batch.
        token: seconds for each of its tokens, padding included.
    """

    def __init__(self, batch: float = 0.0, token: float = 0.0) -> None:
        super().__init__()
        self._batch = batch
        self._token = token

    def mean(self, rows: int, tokens: int) -> float:
        """See `CostModel.mean`."""
        return self._batch + self._token * rows * tokens

    def high(self, rows: int, tokens: int, now: float | None = None) -> float:  # noqa: ARG002 it does not age
        """See `CostModel.high`."""
        return self.mean(rows, tokens)

    def least(self, rows: int, tokens: int) -> float:
        """See `CostModel.least`."""
        return self.mean(rows, tokens)

    def is_stale(self, rows: int, tokens: int, now: float) -> bool:  # noqa: ARG002 it is what it is
        """See `CostModel.is_stale`."""
        return False


class HandLanes:
    """Lanes and device without a thread: a lane looks for work, and ends its batch, when the test says so.

    Args:
        clock: the batcher's.
        count: how many lanes there are.

    Attributes:
        source: the batcher that they serve; to be set.
        wakes: how many batches idle lanes were told of, each time they were told.
        asleep: lanes that found nothing to do, and have not been woken since.
        running: each lane's batch.
        seen: every item that ever reached the device, in order.
        answer: what the device makes of a batch.
    """

    source: MicroBatcher[Any, Any]

    def __init__(self, clock: Clock, count: int = 1) -> None:
        self.count = count
        self.wakes: list[int] = []
        self.asleep = set(range(count))
        self.running = dict[int, Running[Any, Any]]()
        self.seen: list[Any] = []
        self.answer: Callable[[Sequence[Any]], Sequence[Any]] = echo_all
        self._clock = clock

    @property
    def wait(self) -> float:
        """As that of `Lanes`."""
        left = sum(max(0.0, batch.left + batch.seconds - self._clock()) for batch in self.running.values())
        return (left + self.source.load) / self.count

    def wake(self, batches: int) -> None:
        """Wake as many lanes, as far as they sleep."""
        self.wakes.append(batches)
        for _ in range(min(batches, len(self.asleep))):
            self.asleep.pop()

    def take(self, lane: int = 0) -> list[Any]:
        """Let a lane look for work; the items of the batch that it begins with, or none."""
        assert lane not in self.running
        self.asleep.discard(lane)
        batch = self.source.take(self.count - len(self.running))
        if batch is None:
            self.asleep.add(lane)
            return []
        self.running[lane] = batch
        return [work.item for work in batch.works]

    def run(self, items: Sequence[Any], lane: int) -> Sequence[Any]:
        """What the batcher calls."""
        assert lane in self.running
        self.seen += items
        return self.answer(items)

    def end(self, lane: int = 0) -> None:
        """End a lane's batch, and hand its results out."""
        self.end_quietly(lane)()

    def end_quietly(self, lane: int) -> Callable[[], None]:
        """End a lane's batch; what is given back hands its results out."""
        deliver = self.running[lane].run(lane)
        del self.running[lane]
        return deliver


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go round until the condition holds; the clock is asked only whether to give up."""
    began = time.monotonic()
    for turn in count():
        if condition():
            return
        if turn >= MANY_TURNS and time.monotonic() - began >= MANY_SECONDS:
            raise AssertionError("what was waited for never came")
        await asyncio.sleep(0)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """What a metric says now; None where it does not exist."""
    return metrics.registry.get_sample_value(f"faqwire_{name}", labels)


@asynccontextmanager
async def serving_of(
    engine: Engine, settings: Settings, metrics: Metrics, *, today: Callable[[], date] = lambda: EVERY_DAY
) -> AsyncIterator[Serving]:
    """An engine under way; at the end what is held is let go, and it is closed."""
    serving = Serving(engine, settings, metrics, today=today)
    try:
        yield serving
    finally:
        if isinstance(engine, HeldEngine):
            for device in (engine.device, engine.confirming):
                if device is not None:
                    device.let_go()
        assert await serving.close()
