"""What the event loop does beside its clients, and what is logged of faults that nobody awaits."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import structlog

_log = structlog.get_logger(__name__)

# How often a lack of file handles is logged while it lasts.
COMPLAINT_SECONDS = 10.0


class Chores:
    """Tasks that run until they are done or the server stops; one that fails is logged, and the others go on."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_complaint = 0.0

    def __iter__(self) -> Iterator["asyncio.Task[None]"]:
        """Those under way."""
        return iter(list(self._tasks))

    def do(self, chore: Coroutine[Any, Any, None]) -> None:
        """Do something beside all else, until it is done or the server stops."""
        task = asyncio.create_task(chore)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def stop(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        chores = list(self._tasks)
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what nobody awaits; a lack of file handles, which asyncio repeats for every waiting client, now and then.

        Files may run out where the system allows fewer than connections and handshakes may take.
        """
        message = str(context.get("message"))
        if "out of system resource" in message:
            if loop.time() < self._next_complaint:
                return
            self._next_complaint = loop.time() + COMPLAINT_SECONDS
            _log.error("no further connection can be accepted", reason=str(context.get("exception")))
        else:
            _log.error("the event loop met a problem", problem=message, exc_info=context.get("exception"))

    def _done(self, chore: "asyncio.Task[None]") -> None:
        self._tasks.discard(chore)
        if not chore.cancelled() and (problem := chore.exception()) is not None:
            _log.error("the event loop met a problem", problem=f"{chore.get_coro()} has ended", exc_info=problem)
