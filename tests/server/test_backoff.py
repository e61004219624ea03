"""Guards `server.backoff`: delays grow up to a bound, and are drawn below it."""

from server.backoff import Backoff


def bounds(backoff: Backoff, count: int) -> list[float]:
    """The next delays of one that draws the most that it may."""
    return [backoff.next() for _ in range(count)]


def test_bounds_double() -> None:
    """Each bound is twice the one before, up to the largest."""
    assert bounds(Backoff(1, 5, draw=lambda _, most: most), 5) == [1, 2, 4, 5, 5]


def test_reset() -> None:
    """After a success it begins anew."""
    backoff = Backoff(1, 5, draw=lambda _, most: most)
    bounds(backoff, 4)
    backoff.reset()
    assert bounds(backoff, 2) == [1, 2]


def test_jitter_is_full() -> None:
    """A delay is drawn from nothing on: clients that lost their server together do not come back together."""
    drawn: list[tuple[float, float]] = []

    def draw(least: float, most: float) -> float:
        drawn.append((least, most))
        return least

    assert bounds(Backoff(3, 4, draw=draw), 2) == [0, 0]
    assert drawn == [(0, 3), (0, 4)]


def test_it_draws_by_itself() -> None:
    """Left to itself it stays within its bounds, and does not always draw the same."""
    delays = [Backoff(1, 1).next() for _ in range(20)]
    assert all(0 <= delay <= 1 for delay in delays)
    assert len(set(delays)) > 1
