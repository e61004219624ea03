"""Messages that took long, in the log: whose they were, and where the time went, but not what they said.

When everything is slow, everything is slow: of those that come within a while only the first few get a line, and then
one line says how many there were besides. So an overload writes no more than so many lines a minute.
"""

import asyncio

import structlog

from server.ended import Ended
from server.messages import Answer

_log = structlog.get_logger(__name__)

# For how long lines are counted, in seconds, and how many there are in that time at most.
WINDOW_SECONDS = 10.0
LINES = 10


class SlowLog:
    """Logs slow messages; made in a running event loop, and on it alone.

    Args:
        seconds: from how many on a message is slow.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lines = 0
        self._withheld = 0
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def admits(self, ended: Ended) -> bool:
        """Whether a message is to be logged; it counts as such, or as withheld."""
        if ended.seconds < self._seconds:
            return False
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._began = loop.time()
            self._timer = loop.call_later(WINDOW_SECONDS, self._turn)
        if self._lines == LINES:
            self._withheld += 1
            return False
        self._lines += 1
        return True

    def log(self, ended: Ended, trace: str | None) -> None:
        """Log a message.

        Args:
            ended: the message.
            trace: id of the trace that it is kept in, or None.
        """
        reply, running = ended.reply, ended.running
        _log.warning(
            "slow message",
            connection=ended.connection,
            id=reply.id,
            total_ms=_milliseconds(ended.seconds),
            budget_ms=_milliseconds(ended.deadline - ended.arrived),
            outcome=ended.outcome,
            code=ended.code,
            decision=ended.decision,
            confirmation=reply.confirmation if isinstance(reply, Answer) else None,
            stages_ms={lap.stage: _milliseconds(lap.seconds) for lap in ended.laps()},
            waiting=None if running is None else running.ahead,
            trace=trace,
        )

    def close(self) -> None:
        """Say at once what is still to be said."""
        if self._timer is not None:
            self._timer.cancel()
            self._turn()

    def _turn(self) -> None:
        if self._withheld:
            seconds = round(asyncio.get_running_loop().time() - self._began, 1)
            _log.warning("more messages were slow", count=self._withheld, seconds=seconds)
        self._lines = self._withheld = 0
        self._timer = None


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
