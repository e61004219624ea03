"""Token buckets: so many at once, and so many a second from then on."""

from collections import OrderedDict


class TokenBucket:
    """Holds up to `burst` tokens, and gains `rate` a second; it begins full.

    Args:
        rate: tokens a second, above 0.
        burst: most tokens, at least 1.
        now: the time, in seconds.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "_when")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._when = burst, now

    def take(self, now: float, count: int = 1) -> float:
        """Take a token if there is one, or so many if there are.

        Args:
            now: the time, no earlier than the last one told.
            count: how many, at most the burst.

        Returns:
            0 where they were taken, else the seconds until there are as many.
        """
        self._tokens = min(self._burst, self._tokens + (now - self._when) * self._rate)
        self._when = now
        # A wait that is told may round down by a bit: whoever comes back after it finds its token.
        if self._tokens >= count - 1e-6:
            self._tokens = max(0.0, self._tokens - count)
            return 0.0
        return (count - self._tokens) / self._rate

    def is_full(self, now: float) -> bool:
        """Whether it holds all that it can, and so is as good as a new one."""
        return self._tokens + (now - self._when) * self._rate >= self._burst


class TokenBuckets:
    """A bucket for each name, and no more of them than `most`.

    Those that are full again are forgotten; under more names than `most`, so are those that were asked for longest ago.

    Args:
        rate, burst: see `TokenBucket`.
        most: how many to remember.
    """

    def __init__(self, rate: float, burst: float, most: int) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def take(self, name: str, now: float) -> float:
        """See `TokenBucket.take`."""
        bucket = self._buckets.pop(name, None) or TokenBucket(self._rate, self._burst, now)
        self._buckets[name] = bucket
        wait = bucket.take(now)
        while self._buckets:
            oldest = next(iter(self._buckets.values()))
            if len(self._buckets) <= self._most and not oldest.is_full(now):
                break
            self._buckets.popitem(last=False)
        return wait
