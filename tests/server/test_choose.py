"""Guards `server.batching.choose`: who goes together."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.batching import Request, choose

NOBODY: Any = None
A_LOT = 1 << 20


def waiting(*requests: tuple[int, float]) -> list[Request[str, str]]:
    """Requests of these lengths and deadlines, named in order."""
    return [Request(str(number), length, deadline, NOBODY) for number, (length, deadline) in enumerate(requests)]


def names(batch: list[Request[str, str]]) -> list[str]:
    """The names of a batch, in order."""
    return [request.item for request in batch]


def test_earliest_deadline_leads() -> None:
    """Whoever has the least time left goes first, whatever came before."""
    batch = choose(waiting((5, 9.0), (5, 3.0), (5, 6.0)), max_batch=1, max_tokens=A_LOT)
    assert names(batch) == ["1"]


def test_nearest_in_length_fill_up() -> None:
    """The leader takes along those nearest to it in length, shorter or longer, not those that came first."""
    batch = choose(waiting((50, 9.0), (9, 9.0), (10, 1.0), (40, 9.0), (12, 9.0)), max_batch=3, max_tokens=A_LOT)
    assert names(batch) == ["2", "1", "4"]


def test_of_equals_the_more_urgent_goes() -> None:
    """Among requests of the same length the earlier deadline has the place."""
    batch = choose(waiting((10, 1.0), (10, 9.0), (10, 5.0)), max_batch=2, max_tokens=A_LOT)
    assert names(batch) == ["0", "2"]


def test_tokens_are_counted_with_padding() -> None:
    """A batch is as wide as its longest request: 3 of length 10 are 30 tokens, whoever is shorter."""
    requests = waiting((4, 1.0), (5, 9.0), (10, 9.0))
    assert names(choose(requests, max_batch=9, max_tokens=30)) == ["0", "1", "2"]
    assert names(choose(requests, max_batch=9, max_tokens=29)) == ["0", "1"]


def test_too_long_request_goes_alone() -> None:
    """A request that is longer than a whole batch may be still leaves, and nobody with it."""
    assert names(choose(waiting((100, 1.0), (1, 9.0)), max_batch=9, max_tokens=16)) == ["0"]


def test_too_long_request_does_not_hold_up_others() -> None:
    """A request that fits into no batch of others is left for its own."""
    assert names(choose(waiting((4, 1.0), (100, 9.0), (4, 9.0)), max_batch=9, max_tokens=16)) == ["0", "2"]


REQUESTS = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 10)), min_size=1, max_size=30)


@given(REQUESTS, st.integers(1, 8), st.integers(1, 200))
def test_every_batch_keeps_its_bounds(requests: list[tuple[int, float]], max_batch: int, max_tokens: int) -> None:
    """Any batch is led by an earliest deadline, holds nobody twice, and passes neither bound unless it is one."""
    everyone = waiting(*requests)
    batch = choose(everyone, max_batch=max_batch, max_tokens=max_tokens)
    assert batch[0].deadline == min(r.deadline for r in everyone)
    assert len(set(map(id, batch))) == len(batch) <= max_batch
    assert len(batch) == 1 or max(r.length for r in batch) * len(batch) <= max_tokens


@given(REQUESTS, st.integers(1, 8))
def test_nobody_farther_is_preferred(requests: list[tuple[int, float]], max_batch: int) -> None:
    """Whoever stays behind is at least as far from the leader in length as everyone who goes."""
    everyone = waiting(*requests)
    leader, *others = choose(everyone, max_batch=max_batch, max_tokens=A_LOT)
    left = [r for r in everyone if r is not leader and r not in others]
    assert len(others) == min(max_batch, len(everyone)) - 1
    assert all(abs(a.length - leader.length) <= abs(b.length - leader.length) for a in others for b in left)
