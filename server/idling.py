"""Which connections nobody uses, and their end."""

import asyncio
from collections.abc import Collection

from server.connection import Connection

# Most seconds between two looks at all connections; how many are looked at before everything else goes on.
LOOK_SECONDS = 10.0
AT_A_TIME = 200


async def dismiss_idle(connections: Collection[Connection], seconds: float) -> None:
    """Close connections on which no message came for so long, until this is cancelled.

    One look at all of them now and then costs less than a timer for each.

    Args:
        connections: those that are open; looked at anew each time.
        seconds: how long a connection may be idle. It may last longer by a tenth of that.
    """
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(min(LOOK_SECONDS, seconds / 10))
        for number, connection in enumerate(list(connections), 1):
            connection.dismiss_if_idle(clock() - seconds)
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
