"""Who looks at asks once their replies have been written: the log of slow ones, and traces."""

import asyncio
from typing import Self

from server.ended import Ended
from server.engine import Engine
from server.settings import Settings
from server.slow import SlowLog
from server.telemetry import TraceMetrics
from server.tracing import Tracing

# How long a stopping server sends what has been traced.
FLUSH_SECONDS = 2.0


class Watch:
    """Shows asks to whoever looks at them; made in a running event loop, and on it alone.

    Args:
        slow: logs slow ones; None logs none.
        tracing: keeps some as traces, and every slow one that is logged; None keeps none.
    """

    def __init__(self, slow: SlowLog | None, tracing: Tracing | None) -> None:
        self._slow = slow
        self._tracing = tracing

    @classmethod
    async def open(cls, settings: Settings, engine: Engine, metrics: TraceMetrics) -> Self:
        """Open what the settings ask for.

        Raises:
            SettingsError: traces are asked for, and what sends them is not installed.
        """
        slow = None if settings.slow_ms is None else SlowLog(settings.slow_ms / 1000)
        tracing = None
        if settings.trace_endpoint is not None:
            encoder = engine.encoder
            tracing = await asyncio.to_thread(
                Tracing,
                settings.trace_endpoint,
                share=settings.trace_share,
                model=encoder.bundle.manifest.source.model,
                variant=encoder.variant,
                clock=asyncio.get_running_loop().time,
                metrics=metrics,
            )
        return cls(slow, tracing)

    def __call__(self, ended: Ended) -> None:
        """Look at an ask whose reply has just been written; returns at once."""
        slow = self._slow is not None and self._slow.admits(ended)
        trace = None if self._tracing is None else self._tracing.take(ended, wanted=slow)
        if slow and self._slow is not None:
            self._slow.log(ended, trace)

    async def close(self) -> None:
        """Say what is still to be said, and send what is still to be sent, for a while."""
        if self._slow is not None:
            self._slow.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close, FLUSH_SECONDS)
