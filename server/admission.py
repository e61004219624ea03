"""Who may open a connection: so many at a time, of one client and of all, and so many a second.

It is asked twice: at the handshake, where a refusal is a plain HTTP answer, and once the connection is open, for many
handshakes may be under way at the same time. Only the second counts it.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from server.bucket import TokenBuckets

RefusalCause = Literal["stopping", "connections", "connections_per_address", "connection_rate"]

# How many clients' rates are remembered: a few tens of megabytes.
REMEMBERED = 100_000
# When to try again where somebody else has to leave first: nobody knows when that is.
RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is not taken.

    Attributes:
        cause: for the metrics.
        status: of the HTTP answer.
        reason: a sentence for the client's developer.
        retry_after: seconds after which it may be taken, at least 1.
    """

    cause: RefusalCause
    status: HTTPStatus
    reason: str
    retry_after: int


class Admission:
    """Counts connections, and refuses what is too much.

    Args:
        most: connections at a time.
        most_per_client: of one client.
        rate, burst: new ones of one client a second, and at once.
        clock: seconds, monotonic.
    """

    def __init__(self, *, most: int, most_per_client: int, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._most, self._most_per_client, self._clock = most, most_per_client, clock
        self._rates = TokenBuckets(rate, burst, REMEMBERED)
        self._open: Counter[str] = Counter()
        self._total = 0

    @property
    def open(self) -> int:
        """How many connections are counted."""
        return self._total

    def refuse(self, client: str) -> Refusal | None:
        """Why a handshake of this client is refused, or None; one that is not refused for room counts for the rate."""
        if (refusal := self._no_room(client)) is not None:
            return refusal
        wait = self._rates.take(client, self._clock())
        if wait > 0:
            return Refusal(
                "connection_rate",
                HTTPStatus.TOO_MANY_REQUESTS,
                "This address opens connections too fast.",
                max(1, math.ceil(wait)),
            )
        return None

    def enter(self, client: str) -> Refusal | None:
        """Count an open connection, unless there is no room for it."""
        if (refusal := self._no_room(client)) is not None:
            return refusal
        self._open[client] += 1
        self._total += 1
        return None

    def leave(self, client: str) -> None:
        """Forget a connection that was counted."""
        self._total -= 1
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]

    def _no_room(self, client: str) -> Refusal | None:
        if self._total >= self._most:
            return Refusal(
                "connections",
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server has as many connections as it takes.",
                RETRY_SECONDS,
            )
        if self._open.get(client, 0) >= self._most_per_client:
            return Refusal(
                "connections_per_address",
                HTTPStatus.TOO_MANY_REQUESTS,
                "This address has as many connections as one may have.",
                RETRY_SECONDS,
            )
        return None
