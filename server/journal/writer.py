"""One thread that writes records in groups, away from the event loop.

Asks linger, so that many share a transaction; a feedback, whose visitor waits, takes with it whatever is there. While
the journal cannot be written asks stay where they are and are tried again, later and later; a feedback fails at once,
and so does every other that waits with it. Records go into the journal in the order in which they came, but for a
group's feedback, which follows its asks.

Invariants:

- No more than `room` asks wait, and no more than `room` feedbacks; what comes on top is turned away.
- Everything that was accepted ends exactly once: stored, failed, refused by the database, or given up at the close.
- Whoever gave a feedback is told once, and "stored" only after the commit.
- `put` never waits: it takes no lock, and what it shares with the thread is counted by one side alone.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Protocol

import msgspec
import structlog
from sqlalchemy import Table

from server.errors import JournalError
from server.journal.health import Health
from server.journal.records import Row, row_of
from server.journal.schema import asks, feedback
from server.journal.store import Rows
from server.recorder import Asked, Feedback
from server.settings import TextPolicy
from server.telemetry import JournalMetrics, Keeping, Kept, values_of

_log = structlog.get_logger(__name__)

# Most records of a transaction, and how long asks wait for company, in seconds.
GROUP = 1000
LINGER_SECONDS = 0.25
# How long the journal is left alone when it could not be written: at first, and at most. In seconds.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.25, 5.0
# How often old records are looked for, how soon again where that failed, in seconds; how many are deleted at a time.
PRUNE_SECONDS, PRUNE_RETRY_SECONDS, PRUNE_ROWS = 3600.0, 60.0, 1000

# Called in the writer's thread with why a feedback is not stored, or None where it is.
Told = Callable[[str | None], None]
_TABLES: dict[Kept, Table] = {"ask": asks, "feedback": feedback}


class Storage(Protocol):
    """What a writer writes to: `store.Store`, whose methods these are."""

    def open(self) -> None: ...  # noqa: D102
    def write(self, rows: Rows) -> frozenset[int]: ...  # noqa: D102
    def probe(self) -> None: ...  # noqa: D102
    def prune(self, before: datetime, most: int) -> int: ...  # noqa: D102
    def checkpoint(self) -> bool: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class _Given(msgspec.Struct, frozen=True, gc=False):
    record: Asked | Feedback
    at: datetime
    told: Told | None


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    kind: Kept
    row: Row
    told: Told | None


class Writer:
    """Writes records to a store.

    Args:
        store: what writes; the writer's thread owns it.
        policy: what is kept of texts.
        room: most asks that wait, and most feedbacks.
        keep: how old records may grow; None keeps them.
        health: told whether records are kept.
        metrics: told what becomes of them.
        now: the time in UTC.
    """

    def __init__(
        self,
        store: Storage,
        *,
        policy: TextPolicy,
        room: int,
        keep: timedelta | None,
        health: Health,
        metrics: JournalMetrics,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._policy = policy
        self._room = room
        self._keep = keep
        self._health = health
        self._metrics = metrics
        self._now = now
        # Whoever puts appends and counts what has entered; the thread takes and counts what has left.
        self._given: deque[_Given] = deque()
        self._entered: dict[Kept, int] = dict.fromkeys(values_of(Kept), 0)
        self._left: dict[Kept, int] = dict.fromkeys(values_of(Kept), 0)
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._stopping = False
        # From here on the thread's own.
        self._backlog: deque[_Waiting] = deque()
        self._lingers_until: float | None = None
        self._retry_seconds = 0.0
        self._retry_at = 0.0
        self._prune_at = 0.0

    def start(
        self, *, required: bool, opened: Callable[[JournalError | None], None], ended: Callable[[], None]
    ) -> None:
        """Start the thread.

        Args:
            required: that a journal which somebody has to mend is not opened; else it is tried again and again.
            opened: called in the thread, once, with why the journal is not opened, or None.
            ended: called in the thread as the last thing that it does.
        """
        # A disk that hangs must not keep the process alive.
        told = {"required": required, "opened": opened, "ended": ended}
        threading.Thread(target=self._run, kwargs=told, name="journal", daemon=True).start()

    def put(self, record: Asked | Feedback, told: Told | None = None) -> bool:
        """Give a record to be written; from one thread, the event loop's.

        Args:
            record: the record.
            told: told what became of it, and what makes it urgent.

        Returns:
            False if it is not accepted, because too many wait; it is counted, and `told` is not called.
        """
        kind: Kept = "ask" if isinstance(record, Asked) else "feedback"
        if self.waiting(kind) >= self._room:
            self._count(kind, "queue_full")
            self._health.worsen(self._health.reason or f"{self._room} records ({kind}) wait to be written")
            return False
        self._given.append(_Given(record, self._now(), told))
        self._entered[kind] += 1
        # One that is alone starts the others' waiting, and one that fills a group ends it.
        if told is not None or self.waiting() in {1, GROUP}:
            self._wakeups.put(None)
        return True

    def waiting(self, kind: Kept | None = None) -> int:
        """How many records wait, of a kind or in all."""
        if kind is None:
            return self.waiting("ask") + self.waiting("feedback")
        return self._entered[kind] - self._left[kind]

    def stop(self) -> None:
        """Write what waits and end; what cannot be written is given up."""
        self._stopping = True
        self._wakeups.put(None)

    def _run(self, *, required: bool, opened: Callable[[JournalError | None], None], ended: Callable[[], None]) -> None:
        try:
            problem = _problem_of(self._store.open)
            if required and problem is not None and not problem.passing:
                opened(problem)
                return
            self._settle(problem)
            opened(None)
            while self._sleep():
                self._work()
            self._store.close()
        finally:
            ended()

    def _sleep(self) -> bool:
        """Wait until there is something to do; False once there never will be."""
        while True:
            now = time.monotonic()
            if self._stopping and not self._given and not self._backlog:
                return False
            seconds = self._due(now) - now
            if seconds <= 0:
                return True
            try:
                self._wakeups.get(timeout=min(seconds, threading.TIMEOUT_MAX))
            except Empty:
                return True

    def _due(self, now: float) -> float:
        """When there is something to do, on the monotonic clock."""
        if self._stopping or self.waiting("feedback"):
            return now
        if self._retry_seconds:
            return self._retry_at
        return min(self._write_at(now), float("inf") if self._keep is None else self._prune_at)

    def _write_at(self, now: float) -> float:
        """When asks that wait are to be written."""
        if not self._backlog and not self._given:
            self._lingers_until = None
            return float("inf")
        if len(self._backlog) + len(self._given) >= GROUP:
            return now
        if self._lingers_until is None:
            self._lingers_until = now + LINGER_SECONDS
        return self._lingers_until

    def _work(self) -> None:
        """Write a group, and delete some of what is old, where it is time to."""
        now = time.monotonic()
        if self._stopping or self._retry_seconds or self.waiting("feedback") or now >= self._write_at(now):
            self._take()
            if self._backlog:
                self._write()
            elif self._retry_seconds:
                self._attempt(self._store.probe)
        self._metrics.queue_length.set(self.waiting())
        if self._keep is not None and not self._stopping and not self._retry_seconds and now >= self._prune_at:
            self._prune(self._keep)
        # Not before there is room again: it would be well and ill by turns while more comes than can be written.
        if not self._retry_seconds and self.waiting("ask") <= self._room // 2:
            self._health.mend()

    def _take(self) -> None:
        """Make rows of what was given."""
        while self._given:
            given = self._given.popleft()
            kind: Kept = "ask" if isinstance(given.record, Asked) else "feedback"
            try:
                waiting = _Waiting(kind, row_of(given.record, given.at, self._policy), given.told)
            except Exception as exc:  # noqa: BLE001 whatever is wrong with one record is not the others' fault
                self._refuse(_Waiting(kind, {}, given.told), type(exc).__name__)
            else:
                self._backlog.append(waiting)

    def _write(self) -> None:
        group = [self._backlog[place] for place in range(min(len(self._backlog), GROUP))]
        refused: frozenset[int] = frozenset()

        def write() -> None:
            nonlocal refused
            refused = self._store.write([(_TABLES[waiting.kind], waiting.row) for waiting in group])

        with self._metrics.commit_seconds.time():
            problem = self._attempt(write)
        if problem is not None:
            self._give_up(str(problem))
            return
        self._lingers_until = None
        stored: dict[Kept, int] = {"ask": 0, "feedback": 0}
        for place, waiting in enumerate(group):
            self._backlog.popleft()
            if place in refused:
                self._refuse(waiting, "the database does not take it")
                continue
            stored[waiting.kind] += 1
            if waiting.told is not None:
                waiting.told(None)
        for kind, number in stored.items():  # at once: to count is to take a lock
            self._left[kind] += number
            self._count(kind, "stored", number)

    def _prune(self, keep: timedelta) -> None:
        def prune() -> None:
            if self._store.prune(self._now() - keep, PRUNE_ROWS) < PRUNE_ROWS:
                self._prune_at = time.monotonic() + PRUNE_SECONDS
                self._store.checkpoint()  # what has been deleted is in the log until then

        if self._attempt(prune) is not None:
            self._prune_at = time.monotonic() + PRUNE_RETRY_SECONDS

    def _attempt(self, what: Callable[[], object]) -> JournalError | None:
        """Do something with the store; returns how it failed, or None. What failed is tried again later."""
        problem = _problem_of(what)
        self._settle(problem)
        return problem

    def _settle(self, problem: JournalError | None) -> None:
        """Go on at once after what succeeded, and later and later after what failed."""
        if problem is None:
            self._retry_seconds = self._retry_at = 0.0
            return
        self._health.worsen(str(problem))
        self._retry_seconds = min(max(FIRST_RETRY_SECONDS, 2 * self._retry_seconds), LAST_RETRY_SECONDS)
        self._retry_at = time.monotonic() + self._retry_seconds

    def _give_up(self, reason: str) -> None:
        """Nothing can be written: feedback fails, asks wait, or are given up where there is no later."""
        self._take()  # what came meanwhile would fare no better
        kept: deque[_Waiting] = deque()
        for waiting in self._backlog:
            if waiting.told is not None:
                self._end(waiting, "failed", reason)
            elif self._stopping:
                self._end(waiting, "closing")
            else:
                kept.append(waiting)
        self._backlog = kept

    def _refuse(self, waiting: _Waiting, reason: str) -> None:
        _log.error("a record cannot be stored", kind=waiting.kind, reason=reason)
        self._end(waiting, "refused", "the database does not take it")

    def _end(self, waiting: _Waiting, fate: Keeping, reason: str | None = None) -> None:
        self._left[waiting.kind] += 1
        self._count(waiting.kind, fate)
        if waiting.told is not None:
            waiting.told(reason)

    def _count(self, kind: Kept, fate: Keeping, number: int = 1) -> None:
        self._metrics.records[kind][fate].inc(number)


def _problem_of(what: Callable[[], object]) -> JournalError | None:
    """Do something with the store; returns how it failed, or None."""
    try:
        what()
    except JournalError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 a thread that ended would lose all that comes
        _log.critical("the journal failed", exc_info=True)
        return JournalError(f"the journal failed ({type(exc).__name__})")
    return None
