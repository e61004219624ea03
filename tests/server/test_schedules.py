"""Guards the invariants of `server.batching` over random schedules of arrivals, cancellations, failures and closing.

The clock stands still and is moved by the schedule, and a batch ends when the schedule says so: a failing schedule
fails again.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Literal, assert_never

from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching import MicroBatcher
from server.errors import DeadlineExceeded, Internal, Overloaded, RequestError, ShuttingDown
from tests.server.fakes import Batch, Clock, Device, echo, until

MAX_QUEUE, MAX_BATCH, MAX_TOKENS = 4, 3, 24
FAR = 1e9


@dataclass(frozen=True)
class Arrive:
    """A request comes, `patience` seconds before its deadline."""

    length: int
    patience: int


@dataclass(frozen=True)
class Leave:
    """The waiter of one of the unfinished requests is cancelled."""

    which: int


@dataclass(frozen=True)
class End:
    """One of the batches on the device ends."""

    which: int
    how: Literal["well", "failed", "short"]


@dataclass(frozen=True)
class Pass:
    """Time passes."""

    seconds: int


@dataclass(frozen=True)
class Close:
    """The batcher is closed."""


Action = Arrive | Leave | End | Pass | Close

ACTIONS = st.one_of(
    st.builds(Arrive, st.integers(1, 30), st.integers(0, 20)),
    st.builds(Arrive, st.integers(1, 30), st.just(1_000_000)),
    st.builds(Leave, st.integers(0, 9)),
    st.builds(End, st.integers(0, 9), st.sampled_from(["well", "well", "failed", "short"])),
    st.builds(Pass, st.integers(1, 10)),
)
SCHEDULES = st.tuples(st.lists(ACTIONS, max_size=40), st.booleans(), st.lists(ACTIONS, max_size=5)).map(
    lambda parts: [*parts[0], *([Close()] if parts[1] else []), *parts[2]]
)


@dataclass(eq=False)
class Item:
    """One request, what the schedule did to it, and how it ended: with its result, an error, or a cancellation."""

    number: int
    length: int
    deadline: float
    queue_was_full: bool
    left: bool = False
    failed: bool = False
    end: str | BaseException | None = None

    def __str__(self) -> str:
        return f"item {self.number}"

    async def run(self, batcher: "MicroBatcher[Item, str]") -> None:
        """Wait for its end."""
        try:
            self.end, _ = await batcher.submit(self, self.deadline)
        except (RequestError, asyncio.CancelledError) as exc:
            self.end = exc


@dataclass
class Stage:
    """The batcher on its device, with what the schedule has done so far."""

    lanes: int
    clock: Clock = field(default_factory=Clock)
    requests: dict[Item, "asyncio.Task[None]"] = field(default_factory=dict)
    held: list[Batch] = field(default_factory=list)
    closing: "asyncio.Task[bool] | None" = None

    def __post_init__(self) -> None:
        asyncio.get_running_loop().time = self.clock  # type: ignore[method-assign]
        self.device = Device()
        self.batcher = MicroBatcher[Item, str](
            self.device.run,
            length=lambda item: item.length,
            lanes=self.lanes,
            max_queue=MAX_QUEUE,
            max_batch=MAX_BATCH,
            max_tokens=MAX_TOKENS,
        )

    async def act(self, action: Action) -> None:
        """Do one thing, see what comes of it, and check what holds at any time."""
        match action:
            case Arrive(length, patience):
                full = self.batcher.waiting == MAX_QUEUE
                item = Item(len(self.requests), length, self.clock.now + patience, full)
                self.requests[item] = asyncio.create_task(item.run(self.batcher))
            case Leave(which):
                if unfinished := [item for item in self.requests if item.end is None]:
                    item = unfinished[which % len(unfinished)]
                    item.left = self.requests[item].cancel()
            case End(which, how):
                if self.held:
                    self._end(self.held.pop(which % len(self.held)), how)
            case Pass(seconds):
                self.clock.now += seconds
            case Close():
                self.closing = self.closing or asyncio.create_task(self.batcher.close(FAR))
            case _:
                assert_never(action)
        await self._settle()
        assert self.batcher.waiting <= MAX_QUEUE
        assert self.batcher.waiting == 0 or len(self.held) == self.lanes, "a lane is idle, and somebody waits"

    def _end(self, batch: Batch, how: Literal["well", "failed", "short"]) -> None:
        if how == "well":
            batch.finish()
            return
        for item in batch.items:
            item.failed = True
        if how == "failed":
            batch.fail(RuntimeError("the device failed"))
        else:
            batch.finish([])

    async def _settle(self) -> None:
        # What a schedule does comes to rest within a few turns of the loop, and the hand-over between threads.
        for _ in range(2):
            for _ in range(4):
                await asyncio.sleep(0)
            await until(self._all_arrived)

    def _all_arrived(self) -> bool:
        while not self.device.arrived.empty():
            batch = self.device.arrived.get_nowait()
            self._check(batch)
            self.held.append(batch)
        return len(self.held) == len(self.batcher._running)

    def _check(self, batch: Batch) -> None:
        assert batch.lane not in [other.lane for other in self.held], "two batches are on one lane"
        assert 1 <= len(batch.items) <= MAX_BATCH
        assert len(batch.items) == 1 or max(i.length for i in batch.items) * len(batch.items) <= MAX_TOKENS
        for item in batch.items:
            assert not item.left, "the waiter had left"
            assert item.deadline > self.clock.now, "the deadline had passed"
            assert self.closing is None, "the batcher was closed"

    def check_end(self, item: Item) -> None:
        """Whether a request ended as it may, after what the schedule did to it."""
        match item.end:
            case str(result):
                assert result == echo(item)
                assert not item.failed
            case asyncio.CancelledError():
                assert item.left
            case Internal():
                assert item.failed
            case DeadlineExceeded():
                assert item.deadline <= self.clock.now
            case Overloaded(retry_after_ms=wait):
                assert item.queue_was_full
                assert wait is not None
                assert wait >= 1
                assert item not in self.device.seen
            case ShuttingDown():
                assert item not in self.device.seen
            case other:
                raise AssertionError(f"a request ended in {other!r}")


async def play(schedule: list[Action], lanes: int) -> None:
    """Play a schedule, end what is left, and check how everybody ended."""
    stage = Stage(lanes)
    try:
        for action in schedule:
            await stage.act(action)
        await stage.act(Close())
        while stage.held:
            await stage.act(End(0, "well"))
        assert stage.closing is not None
        assert await stage.closing
    finally:
        stage.device.let_go()
    assert len(set(stage.device.seen)) == len(stage.device.seen), "a request reached the device twice"
    for item in stage.requests:
        stage.check_end(item)


@settings(deadline=None, max_examples=400)
@given(SCHEDULES, st.integers(1, 3))
def test_every_request_ends_exactly_once(schedule: list[Action], lanes: int) -> None:
    """Whatever comes, leaves, fails and closes when: the queue keeps its bound, and everybody gets their own end."""
    asyncio.run(play(schedule, lanes))
