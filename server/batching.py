"""The micro-batcher: requests that arrive one by one leave for the device together.

There is no timer. A batch leaves the moment a lane (one thread that owns one session) is free, and holds what has
arrived by then; on an idle server that is a single request, at once. While the lanes are busy requests wait, and the
next batch grows by itself. The request with the earliest deadline leads a batch, and those nearest to it in length
fill it up: padding is work for nothing, and arrival order would cost more than half of the throughput.

All state belongs to the event loop; lanes are given a list and give one back. Invariants:

- `len(self._waiting)` never exceeds `max_queue`; what comes on top is refused with `Overloaded`.
- Every accepted request ends exactly once: with its result, `DeadlineExceeded`, `Internal`, `ShuttingDown`, or its
  waiter's cancellation.
- A request whose deadline has passed, or whose waiter has left, never reaches the device; deadlines are kept by the
  event loop's clock and do not wait for the batch that is running.
- An exception on a lane ends the requests of its own batch and nothing else.
- `close` returns when no lane is running and no request is waiting, or after its patience with a lane that hangs.

Not handled here: what a request costs and whether it can be answered in time; equal requests that could share one
computation; caching.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

import structlog

from server.errors import DeadlineExceeded, Internal, Overloaded, ShuttingDown

# How many seconds a closing batcher lets a batch run on; a longer one hangs.
PATIENCE = 10.0

T = TypeVar("T")
R = TypeVar("R")

_log = structlog.get_logger(__name__)


class Request(Generic[T, R]):
    """One item on its way: `started` is when its batch left, None before that."""

    __slots__ = ("deadline", "future", "item", "length", "started")

    def __init__(self, item: T, length: int, deadline: float, future: "asyncio.Future[R]") -> None:
        self.item = item
        self.length = length
        self.deadline = deadline
        self.future = future
        self.started: float | None = None


def choose(waiting: Sequence[Request[T, R]], *, max_batch: int, max_tokens: int) -> list[Request[T, R]]:
    """The next batch: led by the earliest deadline, filled with those nearest in length.

    Args:
        waiting: what there is to choose from, at least one.
        max_batch: the most requests.
        max_tokens: the most tokens, padding included; a single longer request still goes, alone.
    """
    leader = min(waiting, key=lambda r: r.deadline)
    nearest = heapq.nsmallest(max_batch, waiting, key=lambda r: (abs(r.length - leader.length), r.deadline))
    batch, longest = [leader], leader.length
    for request in nearest:
        if request is leader:
            continue
        longest_then = max(longest, request.length)
        if len(batch) == max_batch or longest_then * (len(batch) + 1) > max_tokens:
            break
        batch.append(request)
        longest = longest_then
    return batch


class MicroBatcher(Generic[T, R]):
    """Batches requests for a function that takes many at a time.

    Args:
        run: called in a lane's thread with the items and the lane's number; gives one result for each.
        length: tokens of an item.
        lanes: how many batches may run at the same time.
        max_queue: how many requests may wait.
        max_batch: how many a batch may hold.
        max_tokens: how many tokens a batch may hold, padding included.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T], int], Sequence[R]],
        *,
        length: Callable[[T], int],
        lanes: int,
        max_queue: int,
        max_batch: int,
        max_tokens: int,
    ) -> None:
        self._run = run
        self._length = length
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._max_tokens = max_tokens
        self._waiting: list[Request[T, R]] = []
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"lane-{lane}") for lane in range(lanes)]
        self._idle = list(range(lanes))
        self._running: dict[int, float] = {}
        self._batch_seconds = 0.0
        self._closing = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def submit(self, item: T, deadline: float) -> tuple[R, float]:
        """Wait for an item's result.

        Cancelling is safe: the item is dropped, and never reaches the device if it has not left yet.

        Args:
            item: what to run.
            deadline: on the event loop's clock (`loop.time()`), in seconds.

        Returns:
            The result, and when its batch left, on the same clock.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: the deadline passed first.
            Internal: the batch failed.
            ShuttingDown: the batcher was closed.
        """
        if self._closing:
            raise ShuttingDown("the server is about to stop; connect again")
        if len(self._waiting) >= self._max_queue:
            raise Overloaded(f"{self._max_queue} requests are waiting already", retry_after_ms=self._drain_ms())
        loop = asyncio.get_running_loop()
        request: Request[T, R] = Request(item, self._length(item), deadline, loop.create_future())
        self._waiting.append(request)
        # A deadline is kept by this timer alone; what it ends is swept out when the next batch is chosen.
        timer = loop.call_at(deadline, self._expire, request)
        try:
            self._dispatch()
            result = await request.future
        finally:
            timer.cancel()
            if request.started is None and request in self._waiting:
                self._waiting.remove(request)
        return result, request.started if request.started is not None else deadline

    @property
    def waiting(self) -> int:
        """How many requests wait for a lane."""
        return len(self._waiting)

    def longest_run(self) -> float:
        """For how many seconds the longest-running batch has been running; 0 when none is."""
        now = asyncio.get_running_loop().time()
        return max((now - started for started in self._running.values()), default=0.0)

    async def close(self, patience: float = PATIENCE) -> bool:
        """Refuse what waits, let what runs end, and stop the lanes.

        Args:
            patience: how many seconds what runs may still take.

        Returns:
            False if a lane was still running by then: its thread cannot be ended.
        """
        self._closing = True
        for request in self._waiting:
            if not request.future.done():
                request.future.set_exception(ShuttingDown("the server is about to stop; connect again"))
        self._waiting.clear()
        try:
            async with asyncio.timeout(patience):
                await self._quiet.wait()
        except TimeoutError:
            _log.critical("a batch does not end", lanes=sorted(self._running), seconds=round(self.longest_run(), 1))
        for thread in self._threads:
            thread.shutdown(wait=False)
        return self._quiet.is_set()

    def _expire(self, request: Request[T, R]) -> None:
        if not request.future.done():
            where = "while it was encoded" if request.started is not None else "before it was encoded"
            request.future.set_exception(DeadlineExceeded(f"the budget was spent {where}"))

    def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle:
            now = loop.time()
            self._waiting = [r for r in self._waiting if not r.future.done() and r.deadline > now]
            if not self._waiting:
                return
            batch = choose(self._waiting, max_batch=self._max_batch, max_tokens=self._max_tokens)
            chosen = set(map(id, batch))
            self._waiting = [r for r in self._waiting if id(r) not in chosen]
            for request in batch:
                request.started = now
            lane = self._idle.pop()
            self._running[lane] = now
            self._quiet.clear()
            task = loop.run_in_executor(self._threads[lane], self._run_in_lane, [r.item for r in batch], lane)
            task.add_done_callback(partial(self._finish, lane, batch))

    def _run_in_lane(self, items: list[T], lane: int) -> Sequence[R]:
        try:
            results = self._run(items, lane)
        except StopIteration as exc:  # no future can carry it: the lane would never be idle again
            raise RuntimeError("the model raised StopIteration") from exc
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} requests")
        return results

    def _finish(self, lane: int, batch: list[Request[T, R]], task: "asyncio.Future[Sequence[R]]") -> None:
        now = asyncio.get_running_loop().time()
        seconds = now - self._running.pop(lane)
        self._batch_seconds += 0.1 * (seconds - self._batch_seconds)
        self._idle.append(lane)
        if not self._running:
            self._quiet.set()
        problem = task.exception()
        results = [] if problem else task.result()
        for position, request in enumerate(batch):
            if request.future.done():
                continue
            if problem is not None:
                request.future.set_exception(Internal("the model failed on this message; the server's log says how"))
            else:
                request.future.set_result(results[position])
        if not self._closing:
            self._dispatch()
        if problem is not None:  # last: where nobody reads the log any more, writing it fails too
            _log.error("batch failed", lane=lane, requests=len(batch), exc_info=problem)

    def _drain_ms(self) -> int:
        """When what waits now will have left, by the pace of the last batches."""
        batches = len(self._waiting) / self._max_batch / len(self._threads)
        return max(1, round(1000 * batches * self._batch_seconds))
