"""Which connections' tokens have expired, and their end."""

import asyncio
import time
from collections.abc import Collection

from server.connection import Connection
from server.idling import look_at_all

# Seconds between two looks at all connections; docs/protocol.md says so.
LOOK_SECONDS = 5.0


async def dismiss_expired(connections: Collection[Connection]) -> None:
    """Close connections whose client's token is valid no more, until this is cancelled.

    It goes by the time of day at each look, as tokens do, and so also where that is set, or the machine has slept.

    Args:
        connections: those that are open; looked at anew each time.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await look_at_all(connections, lambda connection: connection.dismiss_if_expired(time.time()))
