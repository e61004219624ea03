"""Whether a difference may be chance: intervals that are known, and what holds for any two systems."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intents.bootstrap import Difference, differences
from intents.figures import Columns, accuracy_at_1, auroc, overall_accuracy, precision

FIGURES = {"accuracy": accuracy_at_1, "auroc": auroc, "overall": overall_accuracy, "precision": precision}


def columns(right: list[bool], others: int = 5, *, answered: bool = True) -> Columns:
    """In-scope messages that are right or not, all answered or none, and out-of-scope ones that are not answered."""
    total = len(right) + others
    ours = np.arange(total) < len(right)
    padded = np.array([*right, *[False] * others])
    return Columns(ours, padded, np.where(padded, 0.9, 0.4), ours & answered, padded | ~ours)


def test_a_clear_loss_is_told_from_chance() -> None:
    """Forty of a hundred fewer are a loss; one of a hundred is not."""
    good, poor = columns([True] * 90 + [False] * 10), columns([True] * 50 + [False] * 50)
    found = differences([(poor, good)], FIGURES)
    for name in ("accuracy", "overall", "precision"):
        one = found[name]
        assert one is not None
        assert one.is_loss
        assert one.low < one.difference < one.high < 0
    accuracy = found["accuracy"]
    assert accuracy is not None
    assert accuracy.difference == pytest.approx(-0.4)
    # Of the normal approximation: 1.96 standard errors of 40 losses in 100.
    assert accuracy.low == pytest.approx(-0.496, abs=0.02)
    assert accuracy.high == pytest.approx(-0.304, abs=0.02)
    slightly = differences([(columns([True] * 89 + [False] * 11), good)], FIGURES)["accuracy"]
    assert slightly is not None
    assert not slightly.is_loss
    assert slightly.high == 0


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 3))
def test_a_system_does_not_differ_from_itself(right: list[bool], others: int) -> None:
    """Resampling is paired: both systems are put the same messages in every draw."""
    one = columns(right, others)
    for found in differences([(one, one)], FIGURES, resamples=20).values():
        assert found is None or (found.difference, found.low, found.high) == (0, 0, 0)


def test_what_cannot_be_had_is_not_compared() -> None:
    """Without answers there is no precision, and without out-of-scope messages no AUROC, to compare."""
    silent = columns([True, False], others=0, answered=False)
    found = differences([(silent, silent)], FIGURES, resamples=10)
    assert (found["precision"], found["auroc"]) == (None, None)
    assert found["accuracy"] is not None


def test_draws_are_averaged_and_the_seed_decides() -> None:
    """The difference is the mean over draws of the same messages; the same seed gives the same interval."""
    one, other = columns([True, True, False, False]), columns([True, False, False, False])
    pairs = [(one, other), (other, other)]
    found = differences(pairs, FIGURES, seed=4)
    assert found["accuracy"] is not None
    assert found["accuracy"].difference == pytest.approx(0.125)
    assert differences(pairs, FIGURES, seed=4) == found
    assert differences(pairs, FIGURES, seed=5)["accuracy"] != Difference(difference=0.125, low=0.0, high=0.0)
