"""How fast one client may send messages, and when it is not worth talking to any more."""

import math

from server.bucket import TokenBucket
from server.errors import RateLimited

# A client that sends so many times as much as it may, although it is told so each time, is not listening.
FLOOD = 10
# So many frames may come for each message that may. Above `FLOOD`: whoever only sends messages is told before. A ping
# or a pong counts as that many frames, and so may come as often as a message.
FRAMES = 2 * FLOOD
# However slow messages have to be: websocket libraries send pings and pongs by themselves, now and then.
LEAST_RATE, LEAST_BURST = 1.0, 10


class Pace:
    """The pace of one connection's messages: so many at once, and so many a second from then on.

    Its frames have one as well: pings, pongs and parts of messages cannot be refused.

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
        self._frames = TokenBucket(FRAMES * max(rate, LEAST_RATE), FRAMES * max(burst, LEAST_BURST), now)
        self._refused: TokenBucket | None = None  # most clients never need it
        self.flooding = False

    def takes_frame(self, now: float, *, control: bool) -> bool:
        """Count a frame of any kind, before anything is made of it.

        Args:
            now: its arrival, no earlier than that of the one before.
            control: whether it is a ping or a pong.

        Returns:
            Whether it is still one of those that may come.
        """
        return self._frames.take(now, FRAMES if control else 1) == 0

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
