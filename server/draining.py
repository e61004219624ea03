"""How a stopping server parts from its clients: all are told at once, and leave one after the other.

Each is told after how long to go, so that they do not all come to the next server in the same moment. Until then it is
answered as ever. Whoever is still there shortly after its moment is closed, as soon as nothing of it is in flight.
"""

import asyncio
import random
from collections.abc import Collection
from typing import Protocol

# How long after its moment a client is waited for that should go by itself: messages may be on their way to it.
GRACE_SECONDS = 1.0


class Leaving(Protocol):
    """A connection whose client is to go."""

    async def go_away(self, after: float) -> None:
        """Tell the client to go after so many seconds; cancelling is safe."""
        ...

    def leave(self) -> None:
        """Take no more requests, and close as soon as none is in flight; harmless where it has closed."""
        ...


async def drain(connections: Collection[Leaving], gone: asyncio.Event, *, per_second: float, seconds: float) -> None:
    """Let all clients go; returns when they have gone, or the time is over.

    Args:
        connections: theirs; no new ones come.
        gone: set once none is left.
        per_second: how many are told to go in a second; more, where that would take too long.
        seconds: how long it may take at most.
    """
    ends = asyncio.get_running_loop().time() + seconds
    moments = spread(len(connections), per_second, max(0.0, seconds - GRACE_SECONDS))
    queue = list(zip(moments, connections, strict=True))
    # Each has a task: one that does not read must not keep the others from being told.
    chores = [asyncio.create_task(connection.go_away(after)) for after, connection in queue]
    chores.append(asyncio.create_task(_part(queue)))
    try:
        async with asyncio.timeout_at(ends):
            await gone.wait()
    except TimeoutError:
        pass
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)


def spread(count: int, per_second: float, most: float) -> list[float]:
    """When each of so many connections is to go, in seconds from now: evenly, in no particular order."""
    length = min(count / per_second, most)
    moments = [length * place / count for place in range(count)]
    random.shuffle(moments)  # connections come in the order in which they were opened, or in none
    return moments


async def _part(queue: list[tuple[float, Leaving]]) -> None:
    clock = asyncio.get_running_loop().time
    began = clock() + GRACE_SECONDS
    for after, connection in sorted(queue, key=lambda pair: pair[0]):
        left = began + after - clock()
        if left > 0:
            await asyncio.sleep(left)
        connection.leave()
