"""How fast one client may send messages, and when it is not worth talking to any more."""

import math

from server.bucket import TokenBucket
from server.errors import RateLimited

# A client that sends so many times as much as it may, although it is told so each time, is not listening.
FLOOD = 10
# So many frames may come for each message that may. Above `FLOOD`: whoever only sends messages is told before.
FRAMES = 2 * FLOOD


class Pace:
    """The pace of one connection's messages: so many at once, and so many a second from then on.

    Its frames have one as well. Pings, pongs and parts of messages are no messages, and cannot be refused.

    Args:
        rate: messages a second.
        burst: messages at once.
        now: the time, in seconds.

    Attributes:
        flooding: whether more was refused than a client does that heeds refusals: `FLOOD` times the burst at once, or
            for long `FLOOD` times the rate.
    """

    __slots__ = ("_allowed", "_burst", "_frames", "_rate", "_refused", "flooding")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._allowed = TokenBucket(rate, burst, now)
        self._frames = TokenBucket(FRAMES * rate, FRAMES * burst, now)
        self._refused: TokenBucket | None = None  # most clients never need it
        self.flooding = False

    def takes_frame(self, now: float) -> bool:
        """Count a frame of any kind, before anything is made of it.

        Args:
            now: its arrival, no earlier than that of the one before.

        Returns:
            Whether it is still one of those that may come.
        """
        return self._frames.take(now) == 0

    def check(self, now: float) -> RateLimited | None:
        """Count a message.

        Args:
            now: its arrival, no earlier than that of the one before.

        Returns:
            Why it is refused, or None where it is not.
        """
        wait = self._allowed.take(now)
        if wait == 0:
            return None
        if self._refused is None:
            self._refused = TokenBucket(FLOOD * self._rate, FLOOD * self._burst, now)
        self.flooding = self.flooding or self._refused.take(now) > 0
        return RateLimited(
            f"this connection sends more than {self._rate:g} messages a second; wait before the next one",
            retry_after_ms=math.ceil(1000 * wait),
        )
