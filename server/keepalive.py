"""Websocket pings of all connections, and the end of those that do not answer them: one chore, not a task for each.

A connection is asked every so many seconds whether it lives, and has until it is asked again. All wait equally long, so
that who is asked next stands first; and those who came at different times are asked at different times.
"""

import asyncio
from collections.abc import Callable
from itertools import islice, takewhile

from server.websocket import Websocket

# How often a ping is sent; docs/protocol.md says so.
PING_SECONDS = 20.0
# Seconds between two looks at who is due; how many are asked before everything else goes on.
LOOK_SECONDS = 0.25
AT_A_TIME = 50


class Keepalive:
    """Keeps connections alive, and finds those that are not.

    Invariant: whoever is watched stands in `_due` once, and those who are due earlier stand further ahead.

    Args:
        seconds: between two pings; so long has a client for its pong.
        on_silent: told of each connection that is given up.
    """

    def __init__(self, seconds: float, on_silent: Callable[[], None]) -> None:
        self._seconds, self._on_silent = seconds, on_silent
        self._due: dict[Websocket, float] = {}  # in seconds, on the clock

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._due)

    def watch(self, websocket: Websocket, now: float) -> None:
        """Begin with a connection that is open; its first ping is sent when an interval has passed.

        Args:
            websocket: the connection.
            now: the time, in seconds, no earlier than the last one told.
        """
        self._due[websocket] = now + self._seconds

    def forget(self, websocket: Websocket) -> None:
        """Let go of a connection that has ended, or is no longer watched."""
        self._due.pop(websocket, None)

    def look(self, now: float) -> bool:
        """Ask some of those that are due, and give up those that have not answered since they were asked last.

        Args:
            now: the time, as for `watch`.

        Returns:
            Whether others are due as well.
        """
        due = list(islice(takewhile(lambda item: item[1] <= now, self._due.items()), AT_A_TIME + 1))
        for websocket, _ in due[:AT_A_TIME]:
            del self._due[websocket]
            if websocket.probe():
                self._due[websocket] = now + self._seconds  # not earlier, even where this look is late
            else:
                self._on_silent()
        return len(due) > AT_A_TIME

    async def run(self) -> None:
        """Look after connections until this is cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            while self.look(clock()):  # noqa: ASYNC110 nobody tells when a connection is due
                await asyncio.sleep(0)
