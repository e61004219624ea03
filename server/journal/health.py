"""Whether a journal keeps what it is given; it is loud while it does not."""

import time
from collections.abc import Callable

import structlog

from server.telemetry import JournalMetrics

_log = structlog.get_logger(__name__)

# How often a journal that does not keep everything says so, in seconds.
COMPLAINT_SECONDS = 60.0


class Health:
    """Why a journal loses records, or that it does not; told by any thread.

    Args:
        metrics: shown as `faqwire_degraded`.
        clock: seconds, monotonic.

    Attributes:
        reason: a sentence, or None while all is well.
    """

    def __init__(self, metrics: JournalMetrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.reason: str | None = None
        self._metrics = metrics
        self._clock = clock
        self._next_complaint = 0.0

    def worsen(self, reason: str) -> None:
        """Records are lost, or soon will be."""
        first, self.reason = self.reason is None, reason
        self._metrics.degraded.set(1)
        now = self._clock()
        if first or now >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_SECONDS
            _log.error("the journal is degraded; messages are answered all the same", reason=reason)

    def mend(self) -> None:
        """Records are kept again."""
        if self.reason is not None:
            _log.warning("the journal is whole again", after=self.reason)
            self.reason = None
            self._metrics.degraded.set(0)
