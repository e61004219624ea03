"""Token buckets: what they give in any stretch of time."""

from hypothesis import given
from hypothesis import strategies as st

from server.bucket import TokenBucket, TokenBuckets

RATES = st.floats(0.1, 1000)
BURSTS = st.integers(1, 50)
STEPS = st.lists(st.floats(0, 5), min_size=1, max_size=200)


@given(rate=RATES, burst=BURSTS, steps=STEPS)
def test_no_stretch_of_time_gets_more_than_its_burst_and_its_rate(rate: float, burst: int, steps: list[float]) -> None:
    """From any token taken to any later one, there are no more than the burst and what the rate gives meanwhile."""
    bucket, now, taken = TokenBucket(rate, burst, 0.0), 0.0, []
    for step in steps:
        now += step
        if bucket.take(now) == 0:
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - start) * rate + 1e-3


@given(rate=RATES, burst=BURSTS, steps=STEPS)
def test_whoever_waits_as_told_is_served(rate: float, burst: int, steps: list[float]) -> None:
    """And a refusal takes nothing."""
    bucket, now = TokenBucket(rate, burst, 0.0), 0.0
    for step in steps:
        now += step
        wait = bucket.take(now)
        assert wait >= 0
        if wait:
            now += wait
            assert bucket.take(now) == 0


@given(rate=RATES, burst=BURSTS)
def test_a_new_bucket_is_full(rate: float, burst: int) -> None:
    """Its burst may be taken at once, and not one more."""
    bucket = TokenBucket(rate, burst, 7.0)
    assert [bucket.take(7.0) for _ in range(burst)] == [0.0] * burst
    assert bucket.take(7.0) > 0


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 2)), max_size=200))
def test_buckets_are_bounded_and_apart(asks: list[tuple[int, float]]) -> None:
    """No name uses up another's, and no more are remembered than may be."""
    buckets, now = TokenBuckets(1.0, 3, 10), 0.0
    alone: dict[int, TokenBucket] = {}
    for name, step in asks:
        now += step
        wait = buckets.take(str(name), now)
        assert len(buckets) <= 10
        own = alone.setdefault(name, TokenBucket(1.0, 3, now)).take(now)
        # One that was forgotten for want of room begins anew, which is never to its name's loss.
        assert wait <= own + 1e-9 if len(alone) > 10 else abs(wait - own) < 1e-6


def test_full_buckets_are_forgotten() -> None:
    """A client that comes now and then costs no memory in between."""
    buckets = TokenBuckets(1.0, 2, 1000)
    for name in range(500):
        buckets.take(str(name), 0.0)
    assert len(buckets) == 500
    buckets.take("later", 10.0)
    assert len(buckets) == 1


def test_several_at_a_time() -> None:
    """Several tokens are taken together or not at all; the wait is until there are as many."""
    bucket = TokenBucket(2.0, 10, 0.0)
    assert bucket.take(0.0, 8) == 0
    assert bucket.take(0.0, 8) == 3.0
    assert bucket.take(0.0, 2) == 0
    assert bucket.take(4.0, 8) == 0
