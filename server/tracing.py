"""Traces, made of asks after their replies have been written, and sent by a thread of their own.

The event loop does no more than to draw lots, and to put what is kept into a queue. The thread makes spans of it and
sends them in groups. A collector that cannot be reached costs traces, which are counted, and never replies.

Invariants:

- No more than `ROOM` asks wait; what comes on top is lost, and counted.
- `take` never waits.
- While traces are lost the log says so, and no more often than once in `COMPLAINT_SECONDS`.
- `close` returns in time, whatever the collector does.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

import structlog

from server.ended import Ended
from server.spans import Kept, Spans, open_exporter
from server.telemetry import Sending, TraceMetrics

_log = structlog.get_logger(__name__)

# Most asks that wait to be sent, and most that are sent together; how long they wait for company, in seconds.
ROOM = 2048
GROUP = 64
LINGER_SECONDS = 1.0
# How often lost traces are complained of, in seconds.
COMPLAINT_SECONDS = 60.0
# How long a thread that was told to hurry has for it, in seconds.
HURRY_SECONDS = 0.25

# What the exporter writes to the log when it fails, and what is wrong with headers, with the headers.
_EXPORTER = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
_HEADERS = logging.getLogger("opentelemetry.util.re")


class Tracing:
    """Keeps a share of asks as traces, and sends them to a collector.

    Args:
        endpoint: the collector's URL for traces.
        share: of asks that are kept, 0 to 1.
        model, variant: the bi-encoder's, for the traces.
        clock: seconds, monotonic; the event loop's.
        metrics: told what becomes of traces.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        share: float,
        model: str,
        variant: str,
        clock: Callable[[], float],
        metrics: TraceMetrics,
    ) -> None:
        self._share = share
        self._clock = clock
        self._metrics = metrics
        self._queue: SimpleQueue[Kept | None] = SimpleQueue()
        self._closing = False
        self._hurried = False
        self._crowded = False
        # From here on the thread's own.
        self._reason: str | None = None
        self._said: list[str] = []
        self._complained = False
        self._next_complaint = 0.0
        # The collector must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)
        _HEADERS.addFilter(_nothing)
        try:
            self._exporter = open_exporter(endpoint)
        finally:
            _HEADERS.removeFilter(_nothing)
        self._spans = Spans(model, variant)
        _EXPORTER.addFilter(self._listen)
        self._thread.start()

    def take(self, ended: Ended, *, wanted: bool) -> str | None:
        """Keep an ask, if the lot falls on it; returns at once. On the event loop alone.

        Args:
            ended: the ask.
            wanted: whether it is kept whatever the lot says.

        Returns:
            The trace's id, 32 hexadecimal digits; None where it is not kept.
        """
        if not wanted and random.random() >= self._share:  # noqa: S311 no secret
            return None
        if self._closing or self._queue.qsize() >= ROOM:
            self._crowded = not self._closing
            self._metrics.traces["closing" if self._closing else "queue_full"].inc()
            return None
        trace = random.getrandbits(128) or 1
        self._queue.put(Kept(ended, trace, wanted, time.time_ns() - round(self._clock() * 1e9)))
        return f"{trace:032x}"

    def close(self, seconds: float) -> None:
        """Send what waits, for so long; what has not been sent by then is lost. It may be called from any thread."""
        self._closing = True
        self._queue.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._hurried = True
            self._exporter.shutdown()
            lost = 0
            while (kept := _next(self._queue)) is not None:
                lost += 1
                del kept
            self._metrics.traces["closing"].inc(lost)
            self._queue.put(None)
            self._thread.join(HURRY_SECONDS)
            _log.warning("traces are lost, for the collector does not take them", waiting=lost)
        _EXPORTER.removeFilter(self._listen)

    def _run(self) -> None:
        ending = False
        while not ending:
            group, ending = self._gather()
            if group:
                self._send(group)
        if not self._hurried:
            self._exporter.shutdown()

    def _gather(self) -> tuple[list[Kept], bool]:
        """What is sent together, and whether nothing comes after it."""
        group: list[Kept] = []
        until = 0.0
        while len(group) < GROUP:
            try:
                kept = self._queue.get(timeout=max(0.0, until - time.monotonic()) if group else None)
            except Empty:
                break
            if kept is None:
                return group, True
            group.append(kept)
            until = until or time.monotonic() + LINGER_SECONDS
        return group, False

    def _send(self, group: list[Kept]) -> None:
        self._said.clear()
        fate: Sending = "failed"
        try:
            if self._exporter.export([span for kept in group for span in self._spans.of(kept)]).name == "SUCCESS":
                fate = "sent"
        except Exception as exc:  # noqa: BLE001 the next group may fare better
            self._said.append(repr(exc))
        self._metrics.traces[fate].inc(len(group))
        crowded, self._crowded = self._crowded, False
        if fate == "failed":
            self._worsen(self._said[0] if self._said else "the collector does not say why")
        elif crowded:
            self._worsen("more messages are traced than can be sent; lower trace_share")
        else:
            self._mend()

    def _worsen(self, reason: str) -> None:
        self._reason = reason
        self._metrics.degraded.set(1)
        now = time.monotonic()
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_SECONDS
            self._complained = True
            _log.error("traces are lost; messages are answered all the same", reason=reason)

    def _mend(self) -> None:
        if self._reason is None:
            return
        self._metrics.degraded.set(0)
        if self._complained:
            _log.warning("traces are sent again", after=self._reason)
        self._reason, self._complained = None, False

    def _listen(self, record: logging.LogRecord) -> bool:
        """Keep what the exporter says of this thread's sending to itself: it would say so each time."""
        own = record.thread == self._thread.ident
        if own:
            self._said.append(record.getMessage())
        return not own


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _next(queue: SimpleQueue[Kept | None]) -> Kept | None:
    """What comes next without waiting, None where that is nothing or the end."""
    try:
        return queue.get_nowait()
    except Empty:
        return None
