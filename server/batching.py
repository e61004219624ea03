"""The micro-batcher: requests that arrive one by one leave for the device together.

There is no timer. A batch leaves the moment a lane is free, and holds what has arrived by then; on an idle server that
is a single request, at once. While the lanes are busy requests wait, and the next batch grows by itself. The request
with the earliest deadline leads a batch. Those whose slack is running out come next, then those nearest to the leader
in length: padding is work for nothing, and arrival order would cost more than half of the throughput.

Equal items in flight are one computation with several requests. A computation is waiting while it is in `_waiting`, and
whoever takes it out decides what becomes of it: a lane that runs it, or the event loop when its last request has left.
Taking a key out of a dict is atomic, so neither needs a lock. All else belongs to the event loop. Invariants:

- no more than `bounds.queue` computations wait; what comes on top is refused with `Overloaded`, and so is at once what
  cannot be done by its deadline, or would make another one miss its own.
- Every accepted request ends exactly once: with its results, `DeadlineExceeded`, `Internal`, `ShuttingDown`, or its
  withdrawal, which is no other request's.
- What is past its deadline, or whose requests have all left, never reaches the device; deadlines are kept by the event
  loop's clock and do not wait for the batch that is running.
- An exception on a lane ends the requests of its own batch and nothing else.
- After `close` nothing waits, and nothing more leaves.
"""

import asyncio
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, NoReturn, Protocol, TypeVar

import structlog

from server.budget import FRESH, CostModel, Estimate, milliseconds
from server.choice import Bounds, choose
from server.errors import DeadlineExceeded, Internal, Overloaded, RequestError, ShuttingDown
from server.telemetry import DropCause, ModelMetrics
from server.work import Done, Request, Work

T = TypeVar("T")
R = TypeVar("R")

_log = structlog.get_logger(__name__)

# The share of the time left that admission keeps free. A server that promises all of it has no slack to group by
# length with: every batch is led by somebody in a hurry, batches shrink, and it can do less than it promised.
RESERVE = 0.2


class Waker(Protocol):
    """What a micro-batcher needs of the lanes that serve it."""

    @property
    def count(self) -> int:
        """How many batches may run at the same time."""
        ...

    @property
    def wait(self) -> float:
        """Seconds until a lane would get to what comes now and is less urgent than all that waits."""
        ...

    def wake(self, batches: int) -> None:
        """Tell idle lanes that something waits."""
        ...


@dataclass(slots=True)
class Batch(Generic[T, R]):
    """What leaves together.

    Attributes:
        works: what it computes.
        tokens: length of the longest; the others are padded to it.
        seconds: how long it was expected to take.
        left, ended: when it left and when it ended, on the event loop's clock.
    """

    source: "MicroBatcher[T, R]"
    works: list[Work[T, R]]
    tokens: int
    seconds: float
    left: float
    ended: float = 0.0

    def run(self, lane: int) -> Callable[[], None]:
        """See `server.lanes.Batch`."""
        return self.source.run(self, lane)


class MicroBatcher(Generic[T, R]):
    """Batches requests for a function that takes many items at a time.

    Args:
        run: called in a lane's thread with the items and the lane's number; gives one result for each.
        lanes: what runs the batches.
        cost: what batches take; is taught here.
        length: tokens of an item.
        key: items of equal key have equal results.
        shape: rows and tokens that the device really runs for a batch of that many rows, the longest of that many
            tokens; more than these where shapes are fixed.
        clock: seconds, monotonic; the event loop's.
        bounds: what it keeps within.
        metrics: told what happens; on the event loop alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T], int], Sequence[R]],
        lanes: Waker,
        cost: CostModel,
        *,
        length: Callable[[T], int],
        key: Callable[[T], Hashable],
        clock: Callable[[], float],
        bounds: Bounds,
        metrics: ModelMetrics,
        shape: Callable[[int, int], tuple[int, int]] = lambda rows, tokens: (rows, tokens),
    ) -> None:
        self.cost = cost
        self._shape = shape
        self._run = run
        self._lanes = lanes
        self._length = length
        self._key = key
        self._clock = clock
        self._bounds = bounds
        self._metrics = metrics
        self._in_flight: dict[Hashable, Work[T, R]] = {}
        self._waiting: dict[Hashable, Work[T, R]] = {}
        # Seconds of a batch, and of a computation in it.
        self._batch, self._each = Estimate(), Estimate()
        self._latest = -math.inf
        self._closing = False

    def enqueue(self, items: Sequence[T], deadline: float) -> Request[T, R]:
        """Accept a request for the results of one or more items, all of them or none.

        Whoever enqueues has to `wait` or to `withdraw`; to withdraw what has ended does nothing.

        Args:
            items: what to run.
            deadline: on the clock, in seconds.

        Raises:
            Overloaded: the queue is full, or they cannot be done in time.
            DeadlineExceeded: the deadline has passed.
            ShuttingDown: the batcher was closed.
        """
        if self._closing:
            raise _shutting_down()
        now = self._clock()
        if deadline <= now:
            raise DeadlineExceeded("the budget was spent before the message was looked at")
        works, new = self._find(items, now)
        if new:
            self._admit(new, deadline, now)
        loop = asyncio.get_running_loop()
        request: Request[T, R] = Request(works, now, deadline, loop.create_future())
        for work in set(works):
            work.requests.append(request)
            work.deadline = min(work.deadline, deadline)
        self._latest = max(self._latest, deadline) if self._waiting else deadline
        for work in new:
            self._in_flight[work.key] = self._waiting[work.key] = work
        # A deadline is kept by this timer alone.
        request.timer = loop.call_at(deadline, self._expire, request)
        if new:
            self._metrics.queue_length.set(len(self._waiting))
            self._lanes.wake(len(new))
        return request

    async def wait(self, request: Request[T, R]) -> Done[R]:
        """Wait for a request's end; cancelling withdraws it.

        Raises:
            DeadlineExceeded: the deadline passed first.
            Internal: a batch failed.
            ShuttingDown: the batcher was closed.
        """
        try:
            await request.future
        finally:
            self.withdraw(request)
        left = max(request.arrived, request.left)  # what it shares may have left, and ended, before it came
        ran = max(0.0, request.ended - left)
        return Done([work.result for work in request.works], left - request.arrived, ran)

    def withdraw(self, request: Request[T, R]) -> None:
        """End a request that nobody waits for any more; what no other one needs never reaches the device."""
        request.timer.cancel()
        if not request.future.done():
            request.future.cancel()
        elif not request.future.cancelled():
            request.future.exception()  # has been seen now
        self._drop(request, "cancelled")

    @property
    def waiting(self) -> int:
        """How many computations wait for a lane."""
        return len(self._waiting)

    @property
    def urgency(self) -> float | None:
        """See `server.lanes.Source`."""
        if not self._waiting:
            return None
        return min((work.deadline for work in list(self._waiting.values())), default=None)

    @property
    def load(self) -> float:
        """See `server.lanes.Source`."""
        return self._seconds(len(self._waiting))

    def take(self, lanes: int) -> Batch[T, R] | None:
        """See `server.lanes.Source`."""
        now = self._clock()
        waiting = [work for work in list(self._waiting.values()) if work.deadline > now]
        if not waiting:
            return None
        share = -(-len(waiting) // max(1, lanes))  # lanes that are free together share what there is
        bounds = replace(self._bounds, rows=min(self._bounds.rows, share))
        chosen = choose(waiting, self.cost, now, bounds)
        # What was withdrawn just now may have made way for an equal one.
        works = [found for work in chosen if (found := self._waiting.pop(work.key, None)) is not None]
        if not works:  # all of them were withdrawn just now
            return None
        for work in works:
            work.left = now
        tokens = max(work.length for work in works)
        return Batch(self, works, tokens, self.cost.mean(len(works), tokens), now)

    def run(self, batch: Batch[T, R], lane: int) -> Callable[[], None]:
        """See `server.lanes.Batch`."""
        problem: BaseException | None = None
        results: Sequence[R] = ()
        try:
            results = self._run([work.item for work in batch.works], lane)
            if len(results) != len(batch.works):
                raise RuntimeError(f"{len(results)} results for {len(batch.works)} requests")  # noqa: TRY301 as any other
        except BaseException as exc:  # noqa: BLE001 whatever it is must not end the lane
            problem = exc
        batch.ended = self._clock()
        return partial(self._finish, batch, results, problem)

    def close(self) -> None:
        """Refuse what waits and what comes."""
        self._closing = True
        for key in list(self._waiting):
            work = self._waiting.pop(key, None)
            if work is None:  # it has just left
                continue
            del self._in_flight[key]
            self._metrics.dropped["closing"].inc()
            for request in work.requests:
                self._end(request, _shutting_down())
        self._metrics.queue_length.set(0)

    def _find(self, items: Sequence[T], now: float) -> tuple[list[Work[T, R]], list[Work[T, R]]]:
        """A computation for each item, and those of them that are not in flight yet."""
        works: list[Work[T, R]] = []
        new: dict[Hashable, Work[T, R]] = {}
        for item in items:
            key = self._key(item)
            work = self._in_flight.get(key) or new.get(key)
            if work is None:
                work = new[key] = Work(item, key, self._length(item), now)
            else:
                self._metrics.shared.inc()
            works.append(work)
        return works, list(new.values())

    def _admit(self, new: list[Work[T, R]], deadline: float, now: float) -> None:
        """Refuse what cannot be done in time, or would keep others from it."""
        if len(self._waiting) + len(new) > self._bounds.queue:
            raise Overloaded(
                f"{self._bounds.queue} requests are waiting already",
                retry_after_ms=milliseconds(self._lanes.wait),
                queue_full=True,
            )
        # On idle lanes they are split among these; else they ride in a batch such as there have been.
        rows, longest = -(-len(new) // self._lanes.count), max(work.length for work in new)
        left, wait = deadline - now, self._lanes.wait
        if wait > 0:
            own = max(self.cost.high(rows, longest, now), self._batch.mean + self._batch.deviation)
            left *= 1 - RESERVE
        else:  # what it took beside others is not what it takes alone
            own = self.cost.least(rows, longest)
        later: list[Work[T, R]] = []
        if deadline < self._latest:
            later = [work for work in list(self._waiting.values()) if work.deadline > deadline]
            later.sort(key=lambda work: work.deadline)
            wait = max(0.0, wait - self._seconds(len(later)) / self._lanes.count)
        if wait + own > left:
            if wait == 0 and self.cost.is_stale(rows, longest, now):
                return  # the device is idle: rather find out than refuse for ever by what is remembered
            _refuse(wait + own, wait or FRESH)
        # Whoever has to be done later is done after these.
        each = self._seconds(len(later)) / max(1, len(later)) / self._lanes.count
        ends = now + wait + each * len(new)
        for work in later:
            ends += each
            if ends > work.deadline:
                _refuse(ends - now, wait or FRESH)

    def _seconds(self, count: int) -> float:
        """What one lane would need for so many computations, at the pace of the last batches."""
        return count * self._each.mean

    def _expire(self, request: Request[T, R]) -> None:
        if request.future.done():
            return
        where = "while" if request.left else "before"
        self._end(request, DeadlineExceeded(f"the budget was spent {where} the model ran"))
        self._drop(request, "expired")

    def _drop(self, request: Request[T, R], cause: DropCause) -> None:
        """Drop what only this request was waiting for."""
        dropped = kept = 0
        for work in set(request.works):
            if request not in work.requests:
                continue
            work.requests.remove(request)
            waits = self._waiting.get(work.key) is work  # and not an equal one that came after it
            if work.requests:
                work.deadline = min(other.deadline for other in work.requests)
                kept += waits
            elif waits and self._waiting.pop(work.key, None) is not None:
                del self._in_flight[work.key]
                dropped += 1
        if dropped:
            self._metrics.dropped[cause].inc(dropped)
            self._metrics.queue_length.set(len(self._waiting))
        if kept:  # a lane may have passed it over, as late, and sleep since
            self._lanes.wake(kept)

    def _finish(self, batch: Batch[T, R], results: Sequence[R], problem: BaseException | None) -> None:
        for position, work in enumerate(batch.works):
            if self._in_flight.get(work.key) is work:
                del self._in_flight[work.key]
            work.ended = batch.ended
            if problem is None:
                work.result = results[position]
            for request in work.requests:
                request.missing -= 1
                if problem is not None:
                    self._end(request, Internal("the model failed on this message; the server's log says how"))
                elif not request.missing and not request.future.done():
                    request.future.set_result(None)
        if problem is None:
            asyncio.get_running_loop().call_soon(self._learn, batch)  # after those who wait for it have gone on
        else:  # last: where nobody reads the log any more, writing it fails too
            _log.error("batch failed", requests=len(batch.works), exc_info=problem)

    def _learn(self, batch: Batch[T, R]) -> None:
        metrics, rows, seconds = self._metrics, len(batch.works), batch.ended - batch.left
        padded_rows, padded_tokens = self._shape(rows, batch.tokens)
        self.cost.learn(rows, batch.tokens, seconds, batch.ended)
        self._batch.learn(seconds, batch.ended)
        self._each.learn(seconds / rows, batch.ended)
        metrics.ran(
            rows=rows,
            tokens=sum(work.length for work in batch.works),
            padded=padded_rows * padded_tokens,
            seconds=seconds,
            predicted=batch.seconds,
        )
        metrics.queue_length.set(len(self._waiting))
        for work in batch.works:
            metrics.queue_seconds.observe(batch.left - work.arrived)

    @staticmethod
    def _end(request: Request[T, R], error: RequestError) -> None:
        if not request.future.done():
            request.future.set_exception(error)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is about to stop; connect again")


def _refuse(needed: float, retry_after: float) -> NoReturn:
    raise Overloaded(
        f"it would take about {milliseconds(needed)} ms now, more than the budget allows; try again, or with a larger "
        "budget_ms",
        retry_after_ms=milliseconds(retry_after),
    )
