"""Lanes: the threads that own a device's sessions, and run whatever is most urgent.

A lane takes its next batch itself, the moment the last one has ended: the event loop may be busy with replies then, and
the device would wait for it. Every lane owns one session of each encoder, so several micro-batchers share the lanes;
the one whose leader has the earliest deadline is served first.

A lane that finds nothing to do puts itself on the list of idle ones and looks once more before it sleeps; what comes
after that look wakes it. So nothing that waits is overlooked, and no lock is ever taken on the event loop.
"""

import asyncio
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)

# How many seconds closing lanes let a batch run on; a longer one hangs.
PATIENCE = 10.0
# The lanes' niceness; the event loop's is that of the process, 0 as a rule.
NICE = 5


class Batch(Protocol):
    """What a lane runs."""

    @property
    def seconds(self) -> float:
        """How long it is expected to take."""
        ...

    def run(self, lane: int) -> Callable[[], None]:
        """Run it in the calling thread; never raises.

        Returns:
            What to call on the event loop to hand its results out.
        """
        ...


class Source(Protocol):
    """Where batches come from; called in the lanes' threads, by one of them at a time."""

    @property
    def urgency(self) -> float | None:
        """The earliest deadline of what waits, or None."""
        ...

    @property
    def load(self) -> float:
        """Seconds that a single lane would need for what waits."""
        ...

    def take(self, lanes: int) -> Batch | None:
        """The next batch, or None.

        Args:
            lanes: how many lanes are free to share what waits.
        """
        ...


@dataclass(slots=True)
class _Running:
    started: float
    expected: float


class Lanes:
    """Threads that run the batches of one or more sources.

    Args:
        count: how many batches may run at the same time.
        clock: seconds, monotonic; the event loop's.
    """

    def __init__(self, count: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = count
        self._clock = clock
        self._sources: list[Source] = []
        self._wakeups: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(count)]
        self._idle: list[int] = []
        self._running: dict[int, _Running] = {}
        self._choosing = threading.Lock()
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._left = count
        self._all_left = asyncio.Event()

    def attach(self, source: Source) -> None:
        """Serve a source; before `start`."""
        self._sources.append(source)

    def start(self) -> None:
        """Start the threads; results are handed out on the running event loop."""
        loop = asyncio.get_running_loop()
        for lane in range(self.count):
            # A lane that hangs must not keep the process alive: what it waits for may never come.
            thread = threading.Thread(target=self._serve, args=(lane, loop), name=f"lane-{lane}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self, batches: int) -> None:
        """Tell idle lanes that something waits; on the event loop.

        Args:
            batches: into how many batches it could be split at most.
        """
        for _ in range(batches):
            try:
                lane = self._idle.pop()
            except IndexError:
                return
            self._wakeups[lane].put(None)

    @property
    def wait(self) -> float:
        """Seconds until a lane would get to what comes now and is less urgent than all that waits."""
        now = self._clock()
        running = sum(max(0.0, r.started + r.expected - now) for r in list(self._running.values()))
        return (running + sum(source.load for source in self._sources)) / self.count

    @property
    def busy(self) -> int:
        """How many lanes are running a batch."""
        return len(self._running)

    def longest_run(self) -> float:
        """For how many seconds the longest-running batch has been running; 0 when none is."""
        now = self._clock()
        return max((now - r.started for r in list(self._running.values())), default=0.0)

    async def close(self, patience: float = PATIENCE) -> bool:
        """Let what runs end, and stop the lanes; what waits is its source's to refuse.

        Args:
            patience: how many seconds what runs may still take.

        Returns:
            False if a lane was still running by then: its thread cannot be ended.
        """
        self._closing = True
        if not self._threads:
            return True
        for wakeup in self._wakeups:
            wakeup.put(None)
        try:
            async with asyncio.timeout(patience):
                await self._all_left.wait()
        except TimeoutError:
            _log.critical("a batch does not end", lanes=sorted(self._running), seconds=round(self.longest_run(), 1))
            return False
        self._sources.clear()  # they know the lanes too: a circle that would keep an index in memory for some time
        return True

    def _serve(self, lane: int, loop: asyncio.AbstractEventLoop) -> None:
        _yield_to_the_loop()
        try:
            batch: Batch | None = None
            while not self._closing or batch is not None:
                batch = batch or self._take(lane) or self._look_again(lane)
                if batch is None:
                    self._wakeups[lane].get()
                    continue
                deliver = batch.run(lane)
                # The next one is taken first: to wake the event loop is to let it have the interpreter.
                del self._running[lane]
                batch = None if self._closing else self._take(lane)
                loop.call_soon_threadsafe(deliver)
                del deliver  # an idle lane holds on to nothing
            loop.call_soon_threadsafe(self._leave)
        except RuntimeError:
            if not loop.is_closed():  # nobody waits any more, and there is nobody to tell
                raise

    def _take(self, lane: int) -> Batch | None:
        with self._choosing:
            urgencies = [(urgency, source) for source in self._sources if (urgency := source.urgency) is not None]
            for _, source in sorted(urgencies, key=lambda pair: pair[0]):
                try:
                    batch = source.take(self.count - len(self._running))
                except Exception:  # noqa: BLE001 a lane that ended would leave the device idle for good
                    _log.critical("no batch could be chosen", exc_info=True)
                    continue
                if batch is not None:
                    self._running[lane] = _Running(self._clock(), batch.seconds)
                    return batch
        return None

    def _look_again(self, lane: int) -> Batch | None:
        self._idle.append(lane)
        batch = self._take(lane)
        if batch is not None:
            try:
                self._idle.remove(lane)
            except ValueError:  # it has been woken meanwhile: that call is answered here
                self._wakeups[lane].get()
        return batch

    def _leave(self) -> None:
        self._left -= 1
        if not self._left:
            self._all_left.set()


def _yield_to_the_loop() -> None:
    """Run the calling thread at a lower priority than the event loop's.

    There are more lanes than cores. The event loop has little to do at a time, and what it does not do at once (read
    what has come, refuse it, write what is done) nobody else does. Where threads have no priority of their own it is as
    the system sees fit.
    """
    if platform.system() == "Linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
