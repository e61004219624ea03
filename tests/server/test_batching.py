"""Guards `server.batching.MicroBatcher`: when a batch leaves, and how each of its requests ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.batching import MicroBatcher
from server.errors import DeadlineExceeded, Internal, Overloaded, ShuttingDown
from tests.server.fakes import Clock, Device, until

Batcher = MicroBatcher[str, str]
FAR = 1e9


@pytest.fixture(autouse=True)
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The event loop's own clock, which stands still in this file until a test moves it."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


@pytest.fixture
async def batcher(device: Device) -> AsyncIterator[Batcher]:
    """One lane, at most two requests a batch and three waiting."""
    batcher = make(device)
    yield batcher
    device.let_go()
    assert await batcher.close()


def make(device: Device, *, lanes: int = 1) -> Batcher:
    """A batcher over the device."""
    return MicroBatcher(device.run, length=len, lanes=lanes, max_queue=3, max_batch=2, max_tokens=100)


def submit(batcher: Batcher, item: str, deadline: float = FAR) -> "asyncio.Task[tuple[str, float]]":
    """A request under way."""
    return asyncio.create_task(batcher.submit(item, deadline), name=item)


async def test_idle_batcher_sends_at_once(batcher: Batcher, device: Device, clock: Clock) -> None:
    """There is no timer: with the clock standing still a single request leaves, alone, and comes back."""
    request = submit(batcher, "a")
    batch = await device.arrived.get()
    assert batch.items == ["a"]
    batch.finish()
    assert await request == ("vector of a", clock.now)


async def test_what_arrives_meanwhile_leaves_together(batcher: Batcher, device: Device, clock: Clock) -> None:
    """While the lane is busy requests wait; the moment it is free they leave as one batch, bounded in number."""
    requests = [submit(batcher, item) for item in "abcd"]
    first = await device.arrived.get()
    assert (first.items, batcher.waiting) == (["a"], 3)
    clock.now += 5
    first.finish()
    second = await device.arrived.get()
    assert second.items == ["b", "c"]
    second.finish()
    (await device.arrived.get()).finish()
    results = await asyncio.gather(*requests)
    assert [result for result, _ in results] == [f"vector of {item}" for item in "abcd"]
    assert [started for _, started in results] == [1000.0, 1005.0, 1005.0, 1005.0]


async def test_lanes_run_side_by_side(device: Device) -> None:
    """With two lanes two batches run at the same time, each under its own number."""
    batcher = make(device, lanes=2)
    requests = [submit(batcher, item) for item in "ab"]
    batches = [await device.arrived.get(), await device.arrived.get()]
    assert {batch.lane for batch in batches} == {0, 1}
    for batch in batches:
        batch.finish()
    await asyncio.gather(*requests)
    await batcher.close()


async def test_full_queue_refuses(batcher: Batcher, device: Device) -> None:
    """What comes on top of a full queue is refused at once, with a time to come back after; the others go on."""
    requests = [submit(batcher, item) for item in "abcd"]
    batch = await device.arrived.get()
    with pytest.raises(Overloaded) as caught:
        await batcher.submit("e", FAR)
    assert caught.value.retry_after_ms is not None
    assert caught.value.retry_after_ms >= 1
    for _ in range(2):
        batch.finish()
        batch = await device.arrived.get()
    batch.finish()
    await asyncio.gather(*requests)
    assert "e" not in device.seen


async def test_retry_after_follows_the_pace_of_batches(batcher: Batcher, device: Device, clock: Clock) -> None:
    """The slower batches are, the later a refused client is told to come back."""
    first = submit(batcher, "slow")
    slow = await device.arrived.get()
    clock.now += 60
    slow.finish()
    await first
    others = [submit(batcher, item) for item in "abcd"]
    await device.arrived.get()
    with pytest.raises(Overloaded) as caught:
        await batcher.submit("e", FAR)
    assert caught.value.retry_after_ms is not None
    assert caught.value.retry_after_ms > 1000
    device.let_go()
    await asyncio.gather(*others)


async def test_expired_request_never_reaches_the_device(batcher: Batcher, device: Device, clock: Clock) -> None:
    """A deadline that passes in the queue ends its request then, without waiting for the batch that is running."""
    first, second = submit(batcher, "a"), submit(batcher, "b", deadline=1001.0)
    batch = await device.arrived.get()
    clock.now = 1001.5
    with pytest.raises(DeadlineExceeded, match="before it was encoded"):
        await second
    assert batcher.waiting == 0
    batch.finish()
    await first
    assert device.seen == ["a"]


async def test_deadline_in_the_past_never_reaches_the_device(batcher: Batcher, device: Device, clock: Clock) -> None:
    """A request that is late when it comes ends as late, also where the lane is free."""
    with pytest.raises(DeadlineExceeded):
        await batcher.submit("a", clock.now)
    assert (device.seen, batcher.waiting) == ([], 0)


async def test_deadline_is_kept_while_the_batch_runs(batcher: Batcher, device: Device, clock: Clock) -> None:
    """A deadline that passes on the device ends its request then; what the device gives later is dropped."""
    request = submit(batcher, "a", deadline=1001.0)
    batch = await device.arrived.get()
    clock.now = 1001.5
    with pytest.raises(DeadlineExceeded, match="while it was encoded"):
        await request
    batch.finish()
    follower = submit(batcher, "b")
    (await device.arrived.get()).finish()
    assert (await follower)[0] == "vector of b"


async def test_cancelled_request_never_reaches_the_device(batcher: Batcher, device: Device) -> None:
    """A request whose waiter has left gives up its place in the queue."""
    first, second, third = (submit(batcher, item) for item in "abc")
    batch = await device.arrived.get()
    second.cancel()
    await until(second.done)
    assert batcher.waiting == 1
    batch.finish()
    (await device.arrived.get()).finish()
    await asyncio.gather(first, third)
    assert device.seen == ["a", "c"]


async def test_exception_ends_its_own_batch_alone(batcher: Batcher, device: Device, logs: list[dict[str, Any]]) -> None:
    """What fails on the device ends the requests of that batch as internal, is logged once, and nothing else."""
    first, *others = (submit(batcher, item) for item in "abc")
    (await device.arrived.get()).finish()
    (await device.arrived.get()).fail(RuntimeError("the session broke"))
    ends = await asyncio.gather(*others, return_exceptions=True)
    assert [type(end) for end in ends] == [Internal, Internal]
    assert [(log["event"], log["requests"], str(log["exc_info"])) for log in logs] == [
        ("batch failed", 2, "the session broke")
    ]
    assert (await first)[0] == "vector of a"
    follower = submit(batcher, "d")
    (await device.arrived.get()).finish()
    assert (await follower)[0] == "vector of d"


@pytest.mark.parametrize("problem", [StopIteration("leaked"), SystemExit(3), KeyboardInterrupt(), MemoryError()])
async def test_strange_exceptions_do_not_lose_the_lane(
    batcher: Batcher, device: Device, problem: BaseException
) -> None:
    """Exceptions that asyncio or threads treat in their own way end a batch as any other does."""
    request = submit(batcher, "a")
    (await device.arrived.get()).fail(problem)
    with pytest.raises(Internal):
        await request
    follower = submit(batcher, "b")
    (await device.arrived.get()).finish()
    assert (await follower)[0] == "vector of b"


@pytest.mark.parametrize("results", [[], ["one", "too many"]])
async def test_wrong_number_of_results(batcher: Batcher, device: Device, results: list[str]) -> None:
    """A device that gives more or fewer results than requests has failed; nobody gets another's vector."""
    request = submit(batcher, "a")
    (await device.arrived.get()).finish(results)
    with pytest.raises(Internal):
        await request


async def test_close_refuses_what_waits_and_awaits_what_runs(batcher: Batcher, device: Device) -> None:
    """Closing ends the queue at once, lets the running batch end in its own way, and returns after it."""
    running, waiting = submit(batcher, "a"), submit(batcher, "b")
    batch = await device.arrived.get()
    closing = asyncio.create_task(batcher.close())
    with pytest.raises(ShuttingDown):
        await waiting
    with pytest.raises(ShuttingDown):
        await batcher.submit("c", FAR)
    assert not closing.done()
    batch.finish()
    assert (await running)[0] == "vector of a"
    assert await closing
    assert device.seen == ["a"]


async def test_close_does_not_wait_for_ever(
    batcher: Batcher, device: Device, clock: Clock, logs: list[dict[str, Any]]
) -> None:
    """A batch that hangs is given up after some patience; its lane is named, and its request still ends."""
    request = submit(batcher, "a")
    batch = await device.arrived.get()
    closing = asyncio.create_task(batcher.close(patience=7))
    await asyncio.sleep(0)
    clock.now += 8
    assert not await closing
    assert [(log["event"], log["lanes"], log["seconds"]) for log in logs] == [("a batch does not end", [0], 8.0)]
    batch.finish()
    assert (await request)[0] == "vector of a"


async def test_close_is_idempotent(batcher: Batcher) -> None:
    """Closing an idle batcher returns, as often as it is done."""
    await batcher.close()
    await batcher.close()


async def test_longest_run(batcher: Batcher, device: Device, clock: Clock) -> None:
    """The health check sees for how long a batch has been running."""
    assert batcher.longest_run() == 0
    request = submit(batcher, "a")
    batch = await device.arrived.get()
    clock.now += 12
    assert batcher.longest_run() == 12
    batch.finish()
    await request
    assert batcher.longest_run() == 0
