"""Shape buckets: which shapes there are, and which one a batch is padded up to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.runtime.buckets import Buckets

SIZES = st.integers(1, 70)


def test_the_grid_doubles_up_to_its_limits() -> None:
    """Each side doubles and ends at its limit, whatever that is; below 16 tokens there is one length."""
    assert Buckets.up_to(max_rows=32, max_tokens=256) == Buckets((1, 2, 4, 8, 16, 32), (16, 32, 64, 128, 256))
    assert Buckets.up_to(max_rows=5, max_tokens=40) == Buckets((1, 2, 4, 5), (16, 32, 40))
    assert Buckets.up_to(max_rows=1, max_tokens=7) == Buckets((1,), (7,))


@given(max_rows=SIZES, max_tokens=SIZES, rows=SIZES, tokens=SIZES)
def test_a_batch_goes_into_the_smallest_bucket_that_holds_it(
    max_rows: int, max_tokens: int, rows: int, tokens: int
) -> None:
    """No smaller number of rows or tokens of the grid would do; what is larger than the grid is refused."""
    grid = Buckets.up_to(max_rows=max_rows, max_tokens=max_tokens)
    if rows > max_rows or tokens > max_tokens:
        with pytest.raises(
            ValueError, match=f"{rows} rows of {tokens} tokens are more than {max_rows} of {max_tokens}"
        ):
            grid.fit(rows, tokens)
    else:
        expected = min(r for r in grid.rows if r >= rows), min(t for t in grid.tokens if t >= tokens)
        assert grid.fit(rows, tokens) == expected


@given(grid_rows=SIZES, max_tokens=SIZES, max_rows=SIZES, max_batch_tokens=st.integers(1, 2000))
def test_the_buckets_that_are_reached_are_those_of_batches_within_the_limits(
    grid_rows: int, max_tokens: int, max_rows: int, max_batch_tokens: int
) -> None:
    """Every admissible batch ends in one of them, and every one of them is the end of such a batch."""
    grid = Buckets.up_to(max_rows=grid_rows, max_tokens=max_tokens)
    reached = grid.reached(max_rows=max_rows, max_batch_tokens=max_batch_tokens)
    admissible = {
        grid.fit(rows, tokens)
        for rows in range(1, min(max_rows, grid_rows) + 1)
        for tokens in range(1, max_tokens + 1)
        if rows == 1 or rows * tokens <= max_batch_tokens
    }
    assert set(reached) == admissible
    assert len(reached) == len(admissible)
    assert reached == sorted(reached, key=lambda shape: shape[0] * shape[1])
