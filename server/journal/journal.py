"""The journal as the server uses it: for the event loop, which it never holds up."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog

from server.errors import JournalError, NotStored
from server.journal.database import place_of
from server.journal.health import Health
from server.journal.store import Store
from server.journal.writer import Storage, Writer
from server.recorder import Asked, Feedback
from server.settings import Settings
from server.telemetry import JournalMetrics

_log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Journal:
    """Keeps asks and feedback. All methods are for the event loop's thread; `open` makes one.

    Args:
        writer: what writes, not yet started.
        health: whether it does.
    """

    def __init__(self, writer: Writer, health: Health) -> None:
        self._writer = writer
        self._health = health
        self._closing = False
        self._ended = asyncio.Event()
        self._feedback: set[asyncio.Future[str | None]] = set()

    @classmethod
    async def open(
        cls,
        settings: Settings,
        metrics: JournalMetrics,
        *,
        required: bool = True,
        now: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Open the journal that the settings name, make it where there is none, and bring it up to date.

        A lock, a full disk or a database that is not there yet does not keep it from being opened: it is `degraded`,
        and tried again.

        Args:
            settings: where it is, and what it keeps; `settings.journal` is not None.
            metrics: told what becomes of records.
            required: that whatever else is wrong is raised. A worker that takes the place of one that died says False:
                it degrades then as well, for answers shall not stop for a journal.
            now: the time, in UTC.

        Raises:
            JournalError: it is damaged, another program's, a newer faqwire's, or may not be written.
        """
        if settings.journal is None:
            raise JournalError('no journal is set; `journal = "FILE"` in the settings names one')
        store = await asyncio.to_thread(_store_at, settings.journal)
        return await cls.over(store, settings, metrics, required=required, now=now)

    @classmethod
    async def over(
        cls,
        store: Storage,
        settings: Settings,
        metrics: JournalMetrics,
        *,
        required: bool,
        now: Callable[[], datetime] = utc_now,
    ) -> Self:
        """As `open`, over a store of one's own."""
        health = Health(metrics)
        writer = Writer(
            store,
            policy=settings.journal_text,
            room=settings.journal_queue,
            keep=None if settings.journal_days is None else timedelta(days=settings.journal_days),
            health=health,
            metrics=metrics,
            now=now,
        )
        journal = cls(writer, health)
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[str | None] = loop.create_future()
        writer.start(
            required=required,
            opened=lambda problem: _tell(loop, _settle, opened, None if problem is None else str(problem)),
            ended=lambda: _tell(loop, journal._ended.set),
        )
        try:
            problem = await opened
        except asyncio.CancelledError:
            writer.stop()
            raise
        if problem is not None:
            raise JournalError(problem)
        return journal

    @property
    def degraded(self) -> str | None:
        """Why records are lost or feedback is not accepted, for an operator; None while all is well."""
        return self._health.reason

    def asked(self, record: Asked) -> None:
        """Keep an answered ask, if that is possible; returns at once and never raises.

        It is on the disk some time later. Those that find no room, because the journal is slower than asks come or
        cannot be written, are lost and counted.
        """
        if not self._closing:
            self._writer.put(record)

    async def feedback(self, record: Feedback) -> None:
        """Store a feedback; when this returns it is on the disk. Cancelling is safe: it may be stored all the same.

        Raises:
            NotStored: it is not, or may not be; giving it again is safe. The sentence is for the log: it names files.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str | None] = loop.create_future()
        if self._closing:
            raise NotStored("the journal is being closed")
        if not self._writer.put(record, lambda problem: _tell(loop, _settle, done, problem)):
            raise NotStored("too many feedbacks wait to be written")
        self._feedback.add(done)
        try:
            problem = await done
        finally:
            self._feedback.discard(done)
        if problem is not None:
            raise NotStored(problem)

    async def close(self, seconds: float) -> bool:
        """Write what waits, and close; what comes later is not kept.

        Args:
            seconds: how long that may take. What is not written then is lost, and feedback that waits ends as
                `NotStored`.

        Returns:
            False if it took longer: a disk or a database hangs, and the thread with it.
        """
        self._closing = True
        self._writer.stop()
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            _log.critical("the journal cannot be closed", waiting=self._writer.waiting(), seconds=seconds)
            for done in tuple(self._feedback):
                _settle(done, "the journal was closed before this was written")
        return self._ended.is_set()


def _store_at(journal: str) -> Store:
    """In a thread: it looks for files, and may import PostgreSQL's driver."""
    return Store(place_of(journal))


def _settle(future: asyncio.Future[str | None], problem: str | None) -> None:
    if not future.done():  # whoever waited has been cancelled
        future.set_result(problem)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Call a function on the event loop, if that is still there."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():  # nobody waits any more, and there is nobody to tell
            raise
