"""Which connections nobody uses, and their end."""

import asyncio
from collections.abc import Callable, Collection

from server.connection import Connection

# Most seconds between two looks at all connections; how many are looked at before everything else goes on.
LOOK_SECONDS = 10.0
AT_A_TIME = 200


async def dismiss_idle(connections: Collection[Connection], seconds: float) -> None:
    """Close connections on which no message came for so long, until this is cancelled.

    Args:
        connections: those that are open; looked at anew each time.
        seconds: how long a connection may be idle. It may last longer by a tenth of that.
    """
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(min(LOOK_SECONDS, seconds / 10))
        await look_at_all(connections, lambda connection: connection.dismiss_if_idle(clock() - seconds))


async def look_at_all(connections: Collection[Connection], look: Callable[[Connection], None]) -> None:
    """Look at all connections, a few at a time; now and then this costs less than a timer for each."""
    for number, connection in enumerate(list(connections), 1):
        look(connection)
        if number % AT_A_TIME == 0:
            await asyncio.sleep(0)
