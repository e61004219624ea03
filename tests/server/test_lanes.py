"""Guards `server.lanes` with real threads: whatever waits is run by somebody, the most urgent first, and handed out."""

import asyncio
import gc
import random
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from server.batching import MicroBatcher
from server.choice import Bounds
from server.errors import RequestError, ShuttingDown
from server.lanes import Lanes
from server.telemetry import Metrics
from tests.server.fakes import Clock, Device, Steady, echo, echo_all, until

Batcher = MicroBatcher[Any, str]
FAR = 1e9
# Where something waits and nobody comes, that is known soon.
pytestmark = pytest.mark.timeout(60)


def make(lanes: Lanes, run: Callable[[Sequence[Any], int], Sequence[str]], *, queue: int = 99_999) -> Batcher:
    """A batcher that these lanes serve."""
    batcher = MicroBatcher[Any, str](
        run,
        lanes,
        Steady(batch=1e-6),
        length=lambda _: 1,
        key=lambda item: item,
        clock=asyncio.get_running_loop().time,
        bounds=Bounds(queue, 8, 99, 1.0),
        metrics=Metrics(CollectorRegistry()).models["bi-encoder"],
    )
    lanes.attach(batcher)
    return batcher


def quick(items: Sequence[Any], _: int) -> list[str]:
    """A device that takes no time."""
    return echo_all(items)


@asynccontextmanager
async def started(lanes: Lanes, *batchers: Batcher) -> AsyncIterator[None]:
    """Lanes under way, and closed."""
    lanes.start()
    try:
        yield
    finally:
        for batcher in batchers:
            batcher.close()
        assert await lanes.close()


async def ask(batcher: Batcher, *items: Any, deadline: float = FAR) -> list[str]:
    """A request and its results."""
    return (await batcher.wait(batcher.enqueue(items, deadline))).results


async def test_a_source_that_fails_to_choose_does_not_end_its_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the choice of a batch is logged, and what comes next is served."""
    lanes = Lanes(1)
    batcher = make(lanes, quick)
    take, faults = batcher.take, [RuntimeError("a fault")]

    def faulty(count: int) -> Any:
        if faults:
            raise faults.pop()
        return take(count)

    monkeypatch.setattr(batcher, "take", faulty)
    async with started(lanes, batcher):
        first = batcher.enqueue(["a"], FAR)
        await until(lambda: not faults)
        assert await ask(batcher, "b") == [echo("b")]
        assert (await batcher.wait(first)).results == [echo("a")]


async def test_results_come_back_on_the_event_loop(device: Device) -> None:
    """A batch runs in its lane's thread, under the lane's number, and ends its requests on the loop."""
    lanes = Lanes(1)
    batcher = make(lanes, device.run)
    async with started(lanes, batcher):
        asking = asyncio.create_task(ask(batcher, "a"))
        batch = await device.arrived.get()
        assert (batch.items, batch.lane, lanes.busy) == (["a"], 0, 1)
        assert not asking.done()
        batch.finish()
        assert await asking == ["vector of a"]
        await until(lambda: lanes.busy == 0)


class Scripted:
    """A source that has one batch for each of these deadlines, and writes down in which thread it is delivered."""

    def __init__(self, name: str, *deadlines: float, log: list[str]) -> None:
        self._name = name
        self._deadlines = list(deadlines)
        self._log = log
        self.delivered_in: list[int] = []

    seconds = load = 0.0

    @property
    def urgency(self) -> float | None:
        """See `Source.urgency`."""
        return min(self._deadlines, default=None)

    def take(self, lanes: int) -> "Scripted | None":
        """See `Source.take`; a deadline below 0 is somebody who has just left."""
        assert lanes >= 1
        deadline = self._deadlines.pop(self._deadlines.index(min(self._deadlines)))
        self._log.append(f"{self._name} {deadline}")
        return None if deadline < 0 else self

    def run(self, lane: int) -> Callable[[], None]:
        """See `Batch.run`."""
        assert lane == 0
        return lambda: self.delivered_in.append(threading.get_ident())


async def test_sources_are_served_by_urgency() -> None:
    """Of several sources the one with the earliest deadline has the lane, batch by batch."""
    log: list[str] = []
    lanes = Lanes(1)
    one, other = Scripted("one", 10, 30, log=log), Scripted("other", 40, 20, log=log)
    lanes.attach(one)
    lanes.attach(other)
    lanes.start()
    await until(lambda: len(one.delivered_in + other.delivered_in) == 4)
    assert log == ["one 10", "other 20", "one 30", "other 40"]
    assert set(one.delivered_in + other.delivered_in) == {threading.get_ident()}
    assert await lanes.close()


async def test_source_whose_work_has_just_left() -> None:
    """Where the most urgent source has nothing after all, the next one is served."""
    log: list[str] = []
    lanes = Lanes(1)
    one, other = Scripted("one", -1, log=log), Scripted("other", 5, log=log)
    lanes.attach(one)
    lanes.attach(other)
    lanes.start()
    await until(lambda: bool(other.delivered_in))
    assert log == ["one -1", "other 5"]
    assert await lanes.close()


async def test_batchers_share_lanes_by_urgency(device: Device) -> None:
    """While the lane is busy two batchers fill up; the one with the earlier deadline goes first, then the other."""
    lanes = Lanes(1)
    encode, score = make(lanes, device.run), make(lanes, device.run)
    async with started(lanes, encode, score):
        asking = [asyncio.create_task(ask(encode, "first"))]
        batch = await device.arrived.get()
        asking += [asyncio.create_task(ask(encode, "later", deadline=FAR))]
        asking += [asyncio.create_task(ask(score, "sooner", deadline=FAR - 1))]
        await until(lambda: encode.waiting + score.waiting == 2)
        for item in ("sooner", "later"):
            batch.finish()
            batch = await device.arrived.get()
            assert batch.items == [item]
        batch.finish()
        await asyncio.gather(*asking)


async def test_idle_lane_is_woken() -> None:
    """One request after the other, each on an idle server: none is overlooked, whatever the lanes are about to do."""
    lanes = Lanes(3)
    batcher = make(lanes, quick)
    async with started(lanes, batcher):
        for number in range(1000):
            assert await ask(batcher, number) == [echo(number)]


async def test_free_lanes_share_what_waits(device: Device) -> None:
    """What comes together to idle lanes is split among them, each with a number of its own."""
    lanes = Lanes(2)
    batcher = make(lanes, device.run)
    async with started(lanes, batcher):
        asking = asyncio.create_task(ask(batcher, *"abcd"))
        batches = [await device.arrived.get(), await device.arrived.get()]
        assert sorted(len(batch.items) for batch in batches) == [2, 2]
        assert {batch.lane for batch in batches} == {0, 1}
        assert lanes.busy == 2
        for batch in batches:
            batch.finish()
        assert await asking == echo_all("abcd")


async def test_the_event_loop_may_be_busy(device: Device) -> None:
    """The next batch leaves the moment the last one has ended, also while the event loop cannot hand that one out."""
    ran: list[str] = []
    last = threading.Event()

    def run(items: Sequence[Any], lane: int) -> Sequence[str]:
        results = device.run(items, lane) if items == ["a"] else echo_all(items)
        ran.extend(items)
        if items == ["b"]:
            last.set()
        return results

    lanes = Lanes(1)
    batcher = make(lanes, run)
    async with started(lanes, batcher):
        asking = asyncio.create_task(ask(batcher, "a"))
        batch = await device.arrived.get()
        request = batcher.enqueue(["b"], FAR)
        batch.finish()
        last.wait()  # the loop does nothing else
        assert ran == ["a", "b"]
        assert not asking.done()
        assert await asking == ["vector of a"]
        await batcher.wait(request)


class Sudden(Scripted):
    """A source that gets work at the worst of times: when a lane has just looked, and before it sleeps.

    Args:
        lanes: what looks.
        look: which of its looks it is.
        log: as above.
    """

    def __init__(self, lanes: Lanes, look: int, log: list[str]) -> None:
        super().__init__("sudden", log=log)
        self._lanes = lanes
        self._look = look

    @property
    def urgency(self) -> float | None:
        """See `Source.urgency`; work that comes with the first look is not seen by it."""
        self._look -= 1
        seen = super().urgency
        if self._look == 0:
            self._deadlines.append(5.0)
            self._lanes.wake(1)
        return seen


@pytest.mark.parametrize("look", [1, 2, 3, 4])
async def test_work_that_comes_while_a_lane_falls_asleep(look: int) -> None:
    """Between a lane's look and its sleep nothing is overlooked, and nothing is run twice."""
    log: list[str] = []
    lanes = Lanes(1)
    source, other = Sudden(lanes, look, log), Scripted("other", log=log)
    lanes.attach(source)
    lanes.attach(other)
    lanes.start()
    if look > 2:  # the lane sleeps by then
        await until(lambda: bool(lanes._idle))
        other._deadlines.append(9.0)
        lanes.wake(1)
    await until(lambda: bool(source.delivered_in))
    assert await lanes.close()
    assert log.count("sudden 5.0") == len(source.delivered_in) == 1


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.timeout(250)  # it has much to do
@pytest.mark.parametrize("count", [1, 2, 4])
async def test_storm(restless: None, count: int) -> None:
    """Thousands of requests of all sorts for two batchers, some of them cancelled: all end, each with its own results.

    Deadlines in any order, equal items, several items, waiters that leave: wherever the threads interrupt each other,
    nothing is overlooked, lost, or mixed up.
    """
    chance = random.Random(count)  # noqa: S311 no secret
    lanes = Lanes(count)
    batchers = [make(lanes, quick), make(lanes, quick)]
    ends: list[str] = []

    async def one(number: int) -> None:
        items = [chance.randrange(40) if chance.random() < 0.3 else number for _ in range(chance.choice([1, 1, 1, 3]))]
        try:
            assert await ask(batchers[number % 2], *items, deadline=FAR - chance.randrange(1000)) == echo_all(items)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("well")

    async with started(lanes, *batchers):
        tasks: list[asyncio.Task[None]] = []
        while len(tasks) < 4000:
            burst = [asyncio.create_task(one(len(tasks) + number)) for number in range(chance.randrange(1, 60))]
            tasks += burst
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                chance.choice(burst).cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    problems = [result for result in results if result is not None and not isinstance(result, asyncio.CancelledError)]
    assert not problems
    assert ends.count("well") == results.count(None) > 3500
    assert [batcher.waiting for batcher in batchers] == [0, 0]


async def test_closing_in_a_storm(restless: None) -> None:
    """Wherever a batcher is closed, each of its requests has ended: with its results, or as the server stops."""
    for _ in range(30):
        lanes = Lanes(2)
        batcher = make(lanes, quick)
        async with started(lanes, batcher):
            tasks = [asyncio.create_task(ask(batcher, number)) for number in range(100)]
            await until(lambda batcher=batcher: batcher.waiting < 50)  # type: ignore[misc]
            batcher.close()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(end) for end in ends} <= {list, ShuttingDown}
            assert not [end for end in ends if isinstance(end, RequestError) and not isinstance(end, ShuttingDown)]


async def test_close_awaits_what_runs(device: Device) -> None:
    """Closing lets the running batch end, and hands its results out before it returns; nothing is taken any more."""
    lanes = Lanes(1)
    batcher = make(lanes, device.run)
    lanes.start()
    running = asyncio.create_task(ask(batcher, "a"))
    batch = await device.arrived.get()
    waiting = batcher.enqueue(["b"], FAR)
    closing = asyncio.create_task(lanes.close())
    await asyncio.sleep(0)
    assert not closing.done()
    batch.finish()
    assert await closing
    assert await running == ["vector of a"]
    assert device.seen == ["a"]
    batcher.withdraw(waiting)


async def test_close_does_not_wait_for_ever(
    device: Device, logs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that hangs is given up after some patience, and its lane is named; its requests still end if it does."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    lanes = Lanes(2, clock=clock)
    batcher = make(lanes, device.run)
    lanes.start()
    request = batcher.enqueue(["a"], FAR)
    batch = await device.arrived.get()
    closing = asyncio.create_task(lanes.close(patience=7))
    for _ in range(3):
        await asyncio.sleep(0)
    clock.now += 8
    assert not await closing
    assert [(log["event"], log["lanes"], log["seconds"]) for log in logs] == [("a batch does not end", [batch.lane], 8)]
    batch.finish()
    assert (await batcher.wait(request)).results == ["vector of a"]
    assert await lanes.close()


async def test_close_before_start_and_twice() -> None:
    """Lanes can be closed as often as anybody likes, and before they were started."""
    assert await Lanes(1).close()
    lanes = Lanes(2)
    lanes.start()
    assert await lanes.close()
    assert await lanes.close()


async def test_what_is_running(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The health check sees for how long a batch has been running; admission, when a lane will be free."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    lanes = Lanes(2, clock=clock)
    batcher = make(lanes, device.run)
    batcher.cost = Steady(batch=4.0)
    async with started(lanes, batcher):
        assert (lanes.longest_run(), lanes.wait, lanes.busy) == (0, 0, 0)
        request = batcher.enqueue(["a"], FAR)
        batch = await device.arrived.get()
        clock.now += 1
        assert (lanes.longest_run(), lanes.wait, lanes.busy) == (1, 1.5, 1)  # 3 s are left, on one of two lanes
        clock.now += 11
        assert (lanes.longest_run(), lanes.wait) == (12, 0)
        batch.finish()
        await batcher.wait(request)
        await until(lambda: lanes.busy == 0)
        assert lanes.longest_run() == 0


class Big:
    """An item that can be seen to go."""


async def test_an_idle_lane_holds_on_to_nothing() -> None:
    """What has been answered is let go, and not when the next message comes."""
    lanes = Lanes(1)
    batcher = make(lanes, quick)
    async with started(lanes, batcher):
        item = Big()
        gone = weakref.ref(item)
        await ask(batcher, item)
        del item
        gc.collect()
        await until(lambda: gone() is None)


def test_when_the_event_loop_is_gone() -> None:
    """A lane whose event loop has ended without closing it ends too, quietly: there is nobody to tell."""
    device = threading.Event()

    def hang(items: Sequence[Any], _: int) -> list[str]:
        device.wait()
        return echo_all(items)

    async def leave() -> None:
        lanes = Lanes(1)
        batcher = make(lanes, hang)
        lanes.start()
        request = batcher.enqueue(["a"], FAR)
        await until(lambda: lanes.busy == 1)
        batcher.withdraw(request)

    before = threading.enumerate()  # one of another test may not have ended quite
    asyncio.run(leave())
    [thread] = [thread for thread in threading.enumerate() if thread.name == "lane-0" and thread not in before]
    device.set()
    thread.join()
