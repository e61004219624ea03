"""Guards `server.budget`: what a batch is predicted to take, and what the time left allows."""

import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.budget import (
    CAUTION,
    HALF_LIFE,
    INITIAL,
    LENGTHS,
    PATIENCE,
    ROWS,
    UNKNOWN,
    CostModel,
    Estimate,
    Fit,
    fit_candidates,
    milliseconds,
)

NOW = 1000.0


def taught(*seen: tuple[int, int, float], times: int = 1) -> CostModel:
    """A cost model that has seen batches of (rows, tokens, seconds)."""
    cost = CostModel()
    for _ in range(times):
        for rows, tokens, seconds in seen:
            cost.learn(rows, tokens, seconds, NOW)
    return cost


# Estimates.


def test_estimate_begins_with_what_it_sees() -> None:
    """The first observation is the mean, and may be half wrong; before it there is nothing."""
    estimate = Estimate()
    assert (estimate.mean, estimate.deviation, estimate.high) == (0, 0, 0)
    estimate.learn(4.0, NOW)
    assert (estimate.mean, estimate.deviation) == (4, 2)
    assert estimate.high == 4 + CAUTION * 2


def test_estimate_of_a_constant_becomes_sure() -> None:
    """What is always the same is soon known for sure."""
    estimate = Estimate()
    for _ in range(100):
        estimate.learn(4.0, NOW)
    assert estimate.mean == 4
    assert estimate.high == pytest.approx(4, rel=0.01)


def test_estimate_follows_a_change() -> None:
    """What has become slower is taken for slower within some tens of batches, and carefully at once."""
    estimate = Estimate()
    for _ in range(100):
        estimate.learn(1.0, NOW)
    for _ in range(5):
        estimate.learn(2.0, NOW)
    assert estimate.high > 2
    for _ in range(30):
        estimate.learn(2.0, NOW)
    assert estimate.mean == pytest.approx(2, rel=0.05)


def test_estimate_of_two_values_lies_between_them() -> None:
    """Of values that scatter the mean lies in their midst, and the careful value above nearly all of them."""
    estimate = Estimate()
    for number in range(200):
        estimate.learn(1.0 + number % 2, NOW)
    assert 1.3 < estimate.mean < 1.7
    assert estimate.deviation == pytest.approx(0.5, rel=0.2)
    assert estimate.high > 2


def test_old_observations_count_less() -> None:
    """The longer ago something was seen, the more the next observation changes."""

    def after(pause: float) -> float:
        estimate = Estimate()
        for _ in range(5):
            estimate.learn(1.0, NOW)
        estimate.learn(2.0, NOW + pause)
        return estimate.mean

    means = [after(pause) for pause in (0, HALF_LIFE, 4 * HALF_LIFE, 1000 * HALF_LIFE)]
    assert means == sorted(means)
    assert means[0] == pytest.approx(7 / 6)
    assert means[-1] == pytest.approx(2)


def test_time_that_stands_still_or_goes_back_does_no_harm() -> None:
    """Batches may end at the same time, or be told of in another order than they ended."""
    estimate = Estimate()
    for now in (NOW, NOW, NOW - 60, NOW):
        estimate.learn(3.0, now)
    assert estimate.mean == 3


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(0, 100)), min_size=1, max_size=50))
def test_an_estimate_stays_within_what_was_seen(seen: list[tuple[float, float]]) -> None:
    """Whatever is observed when, the mean is within it, and the deviation is never negative."""
    estimate, now = Estimate(), NOW
    for value, pause in seen:
        now += pause
        estimate.learn(value, now)
    values = [value for value, _ in seen]
    assert min(values) * 0.999 <= estimate.mean <= max(values) * 1.001
    assert estimate.deviation >= 0
    assert estimate.high >= estimate.mean


# Cost of batches.


def test_cost_is_guessed_high_before_anything_ran() -> None:
    """A model that never ran is taken for one on a slow CPU, by the token."""
    cost = CostModel()
    assert cost.mean(4, 16) == cost.high(4, 16) == INITIAL * 64


def test_cost_of_what_has_run() -> None:
    """A batch like those that ran is expected to take what they took."""
    cost = taught((4, 16, 0.032), times=100)
    assert cost.mean(4, 16) == pytest.approx(0.032)
    assert cost.high(4, 16) == pytest.approx(0.032, rel=0.01)


def test_cost_is_by_the_token_within_a_bucket() -> None:
    """Shapes of one bucket share what is known, each by its size."""
    cost = taught((4, 16, 0.032), times=100)
    assert cost.mean(3, 14) == pytest.approx(0.032 * 3 * 14 / 64)


def test_cost_of_one_batch_is_not_trusted() -> None:
    """After a single batch the careful figure is far above it."""
    cost = taught((4, 16, 0.032))
    assert cost.mean(4, 16) == pytest.approx(0.032)
    assert cost.high(4, 16) == pytest.approx(0.032 * (1 + CAUTION / 2))


def test_cost_of_other_shapes_is_taken_from_the_nearest() -> None:
    """A shape that never ran costs what its nearest neighbour does by the token, and some more."""
    cost = taught((1, 8, 0.008), (32, 64, 0.2048), times=100)
    assert cost.mean(2, 8) == pytest.approx(UNKNOWN * 16 * 0.001)
    assert cost.mean(16, 64) == pytest.approx(UNKNOWN * 1024 * 0.0001)
    assert cost.high(16, 64) >= cost.mean(16, 64)


def test_of_two_neighbours_the_smaller_batch_is_believed() -> None:
    """Between a small and a large batch that are equally near, the small one's tokens are the dearer and cautious."""
    cost = taught((4, 16, 0.0064), (1, 16, 0.016), times=100)
    assert cost.mean(2, 16) == pytest.approx(UNKNOWN * 32 * 0.001)


def test_a_nearer_neighbour_takes_over() -> None:
    """What is guessed from afar is corrected when something nearer runs, and known when the shape itself has."""
    cost = taught((1, 8, 0.008))
    far = cost.mean(16, 64)
    cost.learn(8, 64, 0.0512, NOW)
    near = cost.mean(16, 64)
    cost.learn(16, 64, 0.1, NOW)
    assert far == pytest.approx(UNKNOWN * 1024 * 0.001)
    assert near == pytest.approx(UNKNOWN * 1024 * 0.0001)
    assert cost.mean(16, 64) == pytest.approx(0.1)


def test_no_batch_is_too_large() -> None:
    """Shapes beyond every bucket have a cost too."""
    cost = taught((2048, 1024, 2.0), times=100)
    assert cost.mean(4096, 1024) == pytest.approx(4)


SHAPES = st.tuples(st.integers(1, 2000), st.integers(1, 1000))


@given(st.lists(st.tuples(SHAPES, st.floats(1e-6, 10)), max_size=20), SHAPES)
def test_every_shape_has_a_cost(seen: list[tuple[tuple[int, int], float]], shape: tuple[int, int]) -> None:
    """Whatever ran, any batch is expected to take some time, and carefully no less."""
    cost = taught(*[(*of, seconds) for of, seconds in seen])
    assert 0 < cost.mean(*shape) <= cost.high(*shape)


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_lanes_ask_while_the_event_loop_teaches(restless: None) -> None:
    """What is asked from another thread meanwhile is some figure, and never a failure."""
    shapes = [(rows, tokens) for rows in ROWS for tokens in LENGTHS]
    models = [CostModel() for _ in range(20)]
    problems: list[BaseException] = []

    def read() -> None:
        try:
            for cost in models:
                while cost.mean(*shapes[-1]) != 0.5:  # it has not learned all
                    assert all(cost.mean(*shape) > 0 for shape in shapes)
        except BaseException as exc:  # noqa: BLE001 the thread's end is looked at below
            problems.append(exc)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for cost in models:
        for shape in shapes:
            cost.learn(*shape, 0.5, NOW)
    for reader in readers:
        reader.join()
    assert not problems


# What fits.


def by_candidate(count: int) -> float:
    """Ten milliseconds for each candidate."""
    return 0.01 * count


@pytest.mark.parametrize(
    ("left", "count"), [(1.0, 5), (0.05, 5), (0.049, 4), (0.01, 1), (0.009, 0), (0.0, 0), (-1.0, 0)]
)
def test_as_many_as_fit(left: float, count: int) -> None:
    """With time for all, all are confirmed; with less, fewer; with none, none. It is the budget that bounds them."""
    assert fit_candidates(5, left, 0.0, by_candidate) == Fit(count, crowded=False)


def test_the_queue_counts() -> None:
    """What waits for the device leaves less time; that more would fit on an idle server is told."""
    assert fit_candidates(5, 0.05, 0.01, by_candidate) == Fit(4, crowded=True)
    assert fit_candidates(1, 0.01, 0.001, by_candidate) == Fit(0, crowded=True)
    assert fit_candidates(5, 0.2, 0.01, by_candidate) == Fit(5, crowded=False)


def test_a_long_queue_is_left_to_others() -> None:
    """Where confirmation would wait for a large share of the time left, messages that know nothing yet come first."""
    wait = 1.0 * PATIENCE
    assert fit_candidates(5, 1.0, wait, by_candidate) == Fit(5, crowded=False)
    assert fit_candidates(5, 1.0, wait + 0.01, by_candidate) == Fit(0, crowded=True)


def test_without_candidates() -> None:
    """Nothing to confirm is nothing confirmed."""
    assert fit_candidates(0, 1.0, 0.0, by_candidate) == Fit(0, crowded=False)


SECONDS = st.floats(0, 2)
STEPS = st.lists(st.floats(0, 0.5), min_size=10, max_size=10)


@given(st.integers(0, 10), SECONDS, SECONDS, STEPS)
def test_never_more_than_fits(most: int, left: float, wait: float, steps: list[float]) -> None:
    """What is confirmed fits into what the queue leaves of the time, and one more would not, or is not worth it."""

    def seconds(count: int) -> float:
        return sum(steps[:count])

    fit = fit_candidates(most, left, wait, seconds)
    assert 0 <= fit.candidates <= most
    if fit.candidates:
        assert seconds(fit.candidates) <= left - wait
        assert wait <= PATIENCE * left
    if fit.candidates < most and wait <= PATIENCE * left:
        assert seconds(fit.candidates + 1) > left - wait
    assert fit.crowded == (fit.candidates < most and seconds(fit.candidates + 1) <= left)


@given(st.integers(0, 10), SECONDS, SECONDS, SECONDS, STEPS)
def test_more_time_is_never_worse(most: int, left: float, more: float, wait: float, steps: list[float]) -> None:
    """With more time left, or a shorter queue, no fewer are confirmed."""

    def confirmed(left: float, wait: float) -> int:
        return fit_candidates(most, left, wait, lambda count: sum(steps[:count])).candidates

    assert confirmed(left + more, wait) >= confirmed(left, wait)
    assert confirmed(left, wait / 2) >= confirmed(left, wait)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, 1), (0.0001, 1), (0.001, 1), (0.0011, 2), (1.5, 1500), (-1.0, 1)]
)
def test_milliseconds(seconds: float, expected: int) -> None:
    """A time to come back is whole milliseconds, rounded up, and never none."""
    assert milliseconds(seconds) == expected
