"""Guards `server.restarts`: a worker that dies is replaced soon, one that dies again and again less and less soon."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.restarts import FIRST_SECONDS, MOST_SECONDS, PATIENCE, STEADY_SECONDS, Restarts

YOUNG = st.floats(0, STEADY_SECONDS, exclude_max=True)


@given(st.lists(YOUNG, min_size=PATIENCE, max_size=3 * PATIENCE))
def test_who_dies_young(lives: list[float]) -> None:
    """Delays grow from death to death up to a bound, and then there is no next start, however often it is asked for."""
    restarts = Restarts()
    delays = [restarts.died(lived) for lived in lives]
    kept = [delay for delay in delays if delay is not None]
    assert len(kept) == PATIENCE - 1
    assert delays == [*kept, *[None] * (len(lives) - len(kept))]
    assert kept[0] == FIRST_SECONDS
    assert all(later == min(2 * earlier, MOST_SECONDS) for earlier, later in pairwise(kept))


@given(st.lists(YOUNG, max_size=PATIENCE - 1), st.floats(STEADY_SECONDS, 1e9))
def test_who_lived_long(before: list[float], lived: float) -> None:
    """A long life makes up for all that was before it."""
    restarts = Restarts()
    for young in before:
        restarts.died(young)
    assert restarts.died(lived) == 0
    assert restarts.died(0) == FIRST_SECONDS


def test_another_chance() -> None:
    """Somebody who has looked after it makes it begin anew."""
    restarts = Restarts()
    while restarts.died(0) is not None:
        pass
    restarts.forgive()
    assert restarts.died(0) == FIRST_SECONDS
