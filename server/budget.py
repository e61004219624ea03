"""What a batch costs on the device, and what the time left allows; pure: whoever calls brings the time.

Device time is estimated online from the batches that ran. A cell for each bucket of rows and of padded length keeps
the mean seconds per padded token and its mean absolute deviation, exponentially weighted (as TCP estimates round
trips, RFC 6298); what a cell has seen counts less the longer ago it was. A shape that has never run is taken to cost
what its nearest known neighbour does, and some more.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

# Padded lengths and rows up to which a cell reaches.
LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Seconds after which what was seen counts half.
HALF_LIFE = 30.0
# The least share that a new observation has in an estimate.
GAIN = 0.1
# Seconds in which a deviation that is not seen again counts half: whoever is refused by it can teach nothing better.
RELAX = 2.0
# What is this many times the mean is something else (the machine stood still), and is taken for no more than that.
OUTLIER = 5.0
# By how much the least that was seen is thought to be more with each observation.
LESS_SO = 1.02
# Seconds for which it is believed, while the device is idle, that something takes too long; then it is tried again.
FRESH = 1.0
# How many mean deviations above the mean a cautious estimate lies: 3 are about 2.4 standard deviations.
CAUTION = 3.0
# What a shape that never ran is taken to cost, beside its nearest neighbour.
UNKNOWN = 1.5
# Seconds per padded token before anything ran: a slow CPU.
INITIAL = 2e-4
# A confirmation that would wait for longer than this share of the time left takes the device from messages that have
# not been encoded yet; they come first.
PATIENCE = 0.25


class Estimate:
    """A quantity's mean and mean absolute deviation, forgetting with age.

    Args:
        half_life: seconds after which what was seen counts half.
    """

    __slots__ = ("_half_life", "_seen", "_weight", "deviation", "least", "mean")

    def __init__(self, half_life: float = HALF_LIFE) -> None:
        self.mean = 0.0
        self.deviation = 0.0
        self.least = 0.0  # seen lately: it rises a little with each observation
        self._half_life = half_life
        self._weight = 0.0
        self._seen = 0.0

    @property
    def high(self) -> float:
        """A value that is seldom passed."""
        return self.mean + CAUTION * self.deviation

    def high_at(self, now: float) -> float:
        """As `high`, less cautious the longer nothing has been seen."""
        return self.mean + CAUTION * self.deviation * math.exp2(-self.age(now) / RELAX)

    def age(self, now: float) -> float:
        """Seconds since something was seen."""
        return max(0.0, now - self._seen)

    def learn(self, value: float, now: float) -> None:
        """Take in an observation made at `now`, in seconds on any clock that does not go back."""
        if self._weight == 0.0:
            self.mean, self.deviation, self.least = value, value / 2, value
        else:
            value = min(value, OUTLIER * self.mean)
            self.least = min(value, LESS_SO * self.least)
            self._weight *= 0.5 ** (max(0.0, now - self._seen) / self._half_life)
            gain = max(GAIN, 1.0 / (1.0 + self._weight))
            self.deviation += gain * (abs(value - self.mean) - self.deviation)
            self.mean += gain * (value - self.mean)
        self._weight += 1.0
        self._seen = now


class CostModel:
    """An online estimate of one model's device time, by token bucket and batch; conservative until it is taught."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], Estimate] = {}
        self._nearest: dict[tuple[int, int], tuple[Estimate, float] | None] = {}

    def mean(self, rows: int, tokens: int) -> float:
        """The seconds that a batch is expected to take.

        Args:
            rows: how many inputs it has.
            tokens: length of the longest, to which the others are padded.
        """
        known = self._find(rows, tokens)
        return rows * tokens * (INITIAL if known is None else known[0].mean * known[1])

    def high(self, rows: int, tokens: int, now: float | None = None) -> float:
        """The seconds that a batch will seldom pass; arguments as `mean`, and `now` to be less cautious with age."""
        known = self._find(rows, tokens)
        if known is None:
            return rows * tokens * INITIAL
        return rows * tokens * known[1] * (known[0].high if now is None else known[0].high_at(now))

    def least(self, rows: int, tokens: int) -> float:
        """The seconds that a batch takes at best, when no other runs beside it; arguments as `mean`."""
        known = self._find(rows, tokens)
        return rows * tokens * (INITIAL if known is None else known[0].least * known[1])

    def is_stale(self, rows: int, tokens: int, now: float) -> bool:
        """Whether a batch of this kind has run, and not within the last second: what it takes now may be less."""
        cell = self._cells.get(_cell(rows, tokens))
        return cell is not None and cell.age(now) >= FRESH

    def learn(self, rows: int, tokens: int, seconds: float, now: float) -> None:
        """Take in how many seconds a batch took that ended at `now`."""
        cell = _cell(rows, tokens)
        known = self._cells.get(cell)
        if known is not None:
            known.learn(seconds / (rows * tokens), now)
            return
        first = Estimate()
        first.learn(seconds / (rows * tokens), now)
        self._cells[cell] = first
        self._nearest.clear()

    def _find(self, rows: int, tokens: int) -> tuple[Estimate, float] | None:
        cell = _cell(rows, tokens)
        exact = self._cells.get(cell)
        if exact is not None:
            return exact, 1.0
        try:
            return self._nearest[cell]
        except KeyError:  # a look before would not do: lanes read while the event loop teaches
            found = self._nearest[cell] = self._look_around(cell)
            return found

    def _look_around(self, cell: tuple[int, int]) -> tuple[Estimate, float] | None:
        # A token costs more in few rows than in many: among equals the neighbour with fewer rows is the cautious one.
        nearest = min(
            list(self._cells),
            key=lambda other: (abs(other[0] - cell[0]) + abs(other[1] - cell[1]), other[0]),
            default=None,
        )
        return None if nearest is None else (self._cells[nearest], UNKNOWN)


def _cell(rows: int, tokens: int) -> tuple[int, int]:
    return bisect_left(ROWS, rows), bisect_left(LENGTHS, tokens)


@dataclass(frozen=True, slots=True)
class Fit:
    """How many candidates may be confirmed, and whether it would be more if nothing else was waiting."""

    candidates: int
    crowded: bool


def fit_candidates(most: int, left: float, wait: float, seconds: Callable[[int], float]) -> Fit:
    """How many candidates can be confirmed in the time left.

    Args:
        most: how many are worth it.
        left: seconds until the reply has to be on its way.
        wait: seconds until the device gets to them.
        seconds: what the device takes for a number of them; grows with it.
    """
    alone = _largest(most, left, seconds)
    candidates = _largest(alone, left - wait, seconds) if wait <= PATIENCE * left else 0
    return Fit(candidates, crowded=candidates < alone)


def _largest(most: int, left: float, seconds: Callable[[int], float]) -> int:
    for count in range(most, 0, -1):
        if seconds(count) <= left:
            return count
    return 0


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, at least 1, for `retry_after_ms`."""
    return max(1, math.ceil(1000 * seconds))
