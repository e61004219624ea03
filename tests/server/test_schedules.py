"""Guards the invariants of `server.batching` over random schedules of all that can happen to a batcher.

No thread and no clock is involved: requests come and leave, lanes look for work and end their batches, time passes,
and the event loop goes round when the schedule says so. In between things lie as they lie in a busy server: a lane
looks at the queue while a deadline has passed and its timer has not fired, a result is on its way while its waiter
leaves. A failing schedule fails again, and is printed.

Beside the batcher runs a model of it that knows nothing but the invariants.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from server.batching import MicroBatcher
from server.budget import CostModel
from server.choice import Bounds
from server.errors import DeadlineExceeded, Internal, Overloaded, RequestError, ShuttingDown
from server.telemetry import Metrics
from server.work import Done, Request
from tests.server.fakes import Clock, HandLanes

SCHEDULES, ACTIONS = 10_000, 32
BOUNDS = Bounds(queue=4, rows=3, tokens=30, seconds=1.0)
# Items are of so many kinds; those of one kind are equal. Each kind has one of these lengths.
KINDS, LENGTHS = 18, (1, 3, 5, 8, 10, 40)
PATIENCE = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 1e6)
How = Literal["well", "failed", "short"]


@dataclass(frozen=True)
class Ask:
    """A request comes, for items of these kinds, so many seconds before its deadline."""

    kinds: tuple[int, ...]
    patience: float


@dataclass(frozen=True)
class Leave:
    """One of the requests that have not ended is given up, by its waiter or by whoever made it."""

    which: int
    by: Literal["waiter", "maker"]


@dataclass(frozen=True)
class Look:
    """One of the lanes that are not asleep looks for work."""

    which: int


@dataclass(frozen=True)
class End:
    """One of the batches on the device ends; its results are on their way."""

    which: int
    how: How


@dataclass(frozen=True)
class Pass:
    """Time passes, and the event loop is busy with something else."""

    seconds: float


@dataclass(frozen=True)
class Turn:
    """The event loop goes round until all that is due has been done."""


@dataclass(frozen=True)
class Close:
    """The batcher is closed."""


Action = Ask | Leave | Look | End | Pass | Turn | Close


def decode(code: bytes) -> list[Action]:
    """The schedule that is written in three bytes for each action; zeros are none, so that fewer are simpler."""
    return [action for at in range(0, len(code), 3) for action in _decode(*code[at : at + 3])]


def _decode(kind: int, one: int, other: int) -> Iterator[Action]:
    match kind % 16:
        case _ if kind in {0, 255}:
            if kind:
                yield Close()
        case 1 | 2 | 3 | 4 | 5:
            count = (1, 1, 2, 3)[one % 4]
            kinds = [(one // 4 + step * (other // 8)) % KINDS for step in range(count)]
            yield Ask(tuple(kinds), PATIENCE[other % len(PATIENCE)])
        case 6 | 7 | 8:
            yield Look(one)
        case 9 | 10:
            hows: tuple[How, ...] = ("well", "well", "well", "failed", "short")
            yield End(one, hows[other % 5])
        case 11 | 12:
            yield Pass((1 + one % 8) / 8)
        case 13:
            yield Leave(one, "maker" if other % 4 == 0 else "waiter")
        case _:
            yield Turn()


@dataclass(eq=False)
class Item:
    """What is to be computed, for the request that first asked for it and those that have joined since.

    Attributes:
        asked: who waits for it, or has waited.
        left: whether a lane has taken it.
        ended: when the device had done it.
    """

    kind: int
    asked: "list[Asked]" = field(default_factory=list)
    left: bool = False
    ended: float = 0.0

    @property
    def length(self) -> int:
        """Its tokens."""
        return LENGTHS[self.kind % len(LENGTHS)]

    @property
    def deadlines(self) -> list[float]:
        """Those of everybody who waits for it."""
        return [asked.deadline for asked in self.asked if asked.waits]


@dataclass(eq=False)
class Asked:
    """A request that was accepted, what the schedule did to it, and how it ended."""

    items: list[Item]
    arrived: float
    deadline: float
    request: Request[Item, Item]
    given_up: bool = False
    dropped: bool = False
    failed: bool = False
    end: Done[Item] | BaseException | None = None
    task: "asyncio.Task[None]" = field(init=False)

    @property
    def waits(self) -> bool:
        """Whether it has not ended, as far as the batcher can know."""
        return self.end is None and not self.dropped

    async def wait(self, batcher: MicroBatcher[Item, Item]) -> None:
        """Wait for its end."""
        try:
            self.end = await batcher.wait(self.request)
        except (RequestError, asyncio.CancelledError) as exc:
            self.end = exc

    def check(self, now: float, *, closed: bool) -> None:
        """Whether it ended as it may, after what the schedule did to it."""
        match self.end:
            case Done(results, queued, ran):
                assert results == self.items
                assert not self.failed
                assert min(queued, ran) >= 0
                assert queued + ran == max(0.0, max(item.ended for item in self.items) - self.arrived)
            case asyncio.CancelledError():
                assert self.given_up
            case Internal():
                assert self.failed
            case DeadlineExceeded():
                assert self.deadline <= now
            case ShuttingDown():
                assert closed
            case other:
                raise AssertionError(f"a request ended in {other!r}")
        assert self.request.timer.cancelled() or self.request.timer.when() <= now, "its timer is still set"


def broken(_: Sequence[Item]) -> Sequence[Item]:
    """A device that fails."""
    raise RuntimeError("the device failed")


ANSWERS: dict[How, Callable[[Sequence[Item]], Sequence[Item]]] = {
    "well": lambda items: items,
    "failed": broken,
    "short": lambda _: [],
}


def taught(now: float) -> CostModel:
    """A device of which it is known that larger batches pay, before it is taught otherwise."""
    cost = CostModel()
    for rows in range(1, BOUNDS.rows + 1):
        for length in LENGTHS:
            cost.learn(rows, length, 0.02, now)
    return cost


METRICS = Metrics(CollectorRegistry()).models["bi-encoder"]


class Stage:
    """A batcher on its lanes, and a model of what is in flight."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.lanes = HandLanes(self.clock, count)
        self.batcher = MicroBatcher[Item, Item](
            self.lanes.run,
            self.lanes,
            taught(self.clock.now),
            length=lambda item: item.length,
            key=lambda item: item.kind,
            clock=self.clock,
            bounds=BOUNDS,
            metrics=METRICS,
        )
        self.lanes.source = self.batcher
        self.asked: list[Asked] = []
        self.in_flight: dict[int, Item] = {}
        self.closed = False
        self.problems: list[object] = []
        self.loop = asyncio.get_running_loop()
        self.loop.time = self.clock  # type: ignore[method-assign]
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))

    @property
    def waiting(self) -> list[Item]:
        """What waits for a lane."""
        return [item for item in self.in_flight.values() if not item.left and item.deadlines]

    @property
    def in_time(self) -> dict[Item, float]:
        """What waits and has no late waiter, with its deadline."""
        earliest = {item: min(item.deadlines) for item in self.waiting}
        return {item: deadline for item, deadline in earliest.items() if deadline > self.clock.now}

    @property
    def awake(self) -> list[int]:
        """Lanes that are about to look for work."""
        return [n for n in range(self.lanes.count) if n not in self.lanes.running and n not in self.lanes.asleep]

    async def act(self, action: Action) -> None:
        """Do one thing, and check what holds at any time."""
        match action:
            case Ask(kinds, patience):
                self._ask(kinds, patience)
            case Leave(which, by):
                self._leave(which, by)
            case Look(which):
                self._look(which)
            case End(which, how):
                self._end(which, how)
            case Pass(seconds):
                self.clock.now += seconds
            case Turn():
                for _ in range(4):
                    await asyncio.sleep(0)
            case Close():
                self.batcher.close()
                self.closed = True
                self.in_flight = {item.kind: item for item in self.in_flight.values() if item.left}
            case _:
                assert_never(action)
        assert not self.problems
        assert self.batcher.waiting == len(self.waiting) <= BOUNDS.queue
        free = self.lanes.count - len(self.lanes.running)
        assert len(self.awake) >= min(free, len(self.in_time)), "a lane sleeps, and somebody waits for it"

    def _ask(self, kinds: Sequence[int], patience: float) -> None:
        shared = {kind: item for kind, item in self.in_flight.items() if item.left or item.deadlines}
        new = {kind: Item(kind) for kind in kinds if kind not in shared}
        # What is equal to what is in flight is another object, and must not be computed.
        items = [new.get(kind) or Item(kind) for kind in kinds]
        now, before = self.clock.now, self.batcher.waiting
        try:
            request = self.batcher.enqueue(items, now + patience)
        except DeadlineExceeded:
            assert patience == 0
        except ShuttingDown:
            assert self.closed
        except Overloaded as exc:
            self._check_refusal(exc, [*new.values()], patience)
        else:
            assert patience > 0
            assert not self.closed
            asked = Asked([(new | shared)[kind] for kind in kinds], now, now + patience, request)
            self.asked.append(asked)
            for item in set(asked.items):
                item.asked.append(asked)
            self.in_flight |= new
            asked.task = asyncio.create_task(asked.wait(self.batcher))
            asked.task.add_done_callback(lambda _: self._drop(asked))
            return
        assert self.batcher.waiting == before

    def _check_refusal(self, refusal: Overloaded, new: Sequence[Item], patience: float) -> None:
        assert new, "it needed nothing new"
        assert refusal.retry_after_ms is not None
        assert refusal.retry_after_ms >= 1
        assert refusal.queue_full == (self.batcher.waiting + len(new) > BOUNDS.queue)
        if not refusal.queue_full and not self.lanes.running and not self.batcher.waiting:
            rows = -(-len(new) // self.lanes.count)
            takes = self.batcher.cost.high(rows, max(item.length for item in new))
            assert takes > patience, "there was all the time it needs"

    def _leave(self, which: int, by: Literal["waiter", "maker"]) -> None:
        unfinished = [asked for asked in self.asked if asked.waits]
        if not unfinished:
            return
        asked = unfinished[which % len(unfinished)]
        asked.given_up = True
        if by == "waiter":
            asked.task.cancel()
        else:
            self._drop(asked)

    def _drop(self, asked: Asked) -> None:
        self.batcher.withdraw(asked.request)
        asked.dropped = True
        if asked.task.cancelled():  # before its first step
            asked.end = asyncio.CancelledError()

    def _look(self, which: int) -> None:
        if not self.awake:
            return
        lane = self.awake[which % len(self.awake)]
        in_time, free = self.in_time, self.lanes.count - len(self.lanes.running)
        most = min(BOUNDS.rows, -(-len(self.waiting) // free))
        items: list[Item] = self.lanes.take(lane)
        if not items:
            assert not in_time, "somebody waits, and a free lane takes nobody"
            return
        assert not self.closed
        for item in items:
            assert item is self.in_flight[item.kind]
            assert not item.left
            assert max(item.deadlines, default=0) > self.clock.now, "all who wait for it are late, or have left"
            item.left = True
        rows, tokens, leader = len(items), max(item.length for item in items), min(items[0].deadlines)
        assert leader <= min(in_time.values()), "another one is more urgent"
        assert rows <= most
        if rows > 1:
            assert rows * tokens <= BOUNDS.tokens
            assert self.batcher.cost.mean(rows, tokens) <= min(BOUNDS.seconds, leader - self.clock.now)

    def _end(self, which: int, how: How) -> None:
        running = sorted(self.lanes.running)
        if not running:
            return
        lane = running[which % len(running)]
        items: list[Item] = [work.item for work in self.lanes.running[lane].works]
        self.lanes.answer = ANSWERS[how]
        deliver = self.lanes.end_quietly(lane)
        for item in items:
            item.ended = self.clock.now
        self.loop.call_soon(self._deliver, deliver, items, how)

    def _deliver(self, deliver: Callable[[], None], items: Sequence[Item], how: How) -> None:
        for item in items:
            if self.in_flight.get(item.kind) is item:
                del self.in_flight[item.kind]
            for asked in item.asked:
                asked.failed |= how != "well" and asked.waits
        deliver()

    async def finish(self, *, close: bool) -> None:
        """Close, or do all that waits; then check how everybody ended."""
        if close:
            await self.act(Close())
        await self.act(Turn())
        for _ in range(BOUNDS.queue + self.lanes.count):
            while self.awake:
                await self.act(Look(0))
            await self.act(End(0, "well"))
            await self.act(Turn())
        for asked in self.asked:
            asked.check(self.clock.now, closed=self.closed)
        assert len(set(self.lanes.seen)) == len(self.lanes.seen), "something was computed twice"
        assert not self.waiting
        assert not [item for item in self.in_flight.values() if item.left], "a batch never came back"


async def play(schedule: Sequence[Action], lanes: int, *, close: bool) -> None:
    """Play a schedule to its end."""
    stage = Stage(lanes)
    for action in schedule:
        await stage.act(action)
    await stage.finish(close=close)


@settings(deadline=None, max_examples=SCHEDULES)
@given(
    schedule=st.binary(min_size=3 * ACTIONS, max_size=3 * ACTIONS).map(decode),
    lanes=st.integers(1, 3),
    close=st.booleans(),
)
def test_every_request_ends_exactly_once(schedule: list[Action], lanes: int, *, close: bool) -> None:
    """Whatever comes, leaves, fails and closes when: everybody gets their own end, and every invariant holds."""
    with capture_logs():
        asyncio.run(play(schedule, lanes, close=close))
