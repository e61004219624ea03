"""Figures side by side: means over draws, what the cascade keeps of full confirmation, and what is a regression."""

import pytest

from intents.comparison import compare, versus
from intents.systems import Run, System, Trial
from tests.intents.judging import judged


def run(right: int, of: int = 40, seconds: float = 1.0) -> Run:
    """So many of the in-scope messages are right, and ten out-of-scope ones get no answer."""
    ours = [judged("a", "answer", "a" if i < right else "b", confidence=0.8) for i in range(of)]
    others = [judged(None, "no_match", "a", confidence=0.1) for _ in range(10)]
    return Run((*ours, *others), seconds)


def trial(alone: int, **others: int) -> Trial:
    """A trial of systems that get so many right."""
    systems: dict[str, System] = {"cascade": "cascade", "full": "full_confirmation"}
    depths = (run(alone), run(others["cascade"])) if "cascade" in others else ()
    return Trial({"alone": run(alone), **{systems[name]: run(right) for name, right in others.items()}}, depths)


def test_the_cascade_beside_the_others() -> None:
    """Its difference has an interval, and its gain is a share of full confirmation's."""
    found = compare([trial(20, cascade=32, full=36)], 0.3, seed=1)
    assert [report.accuracy_at_1 for report in found.reports.values()] == [0.5, 0.8, 0.9]
    gain = found.differences["accuracy@1"]
    assert gain is not None
    assert gain.difference == pytest.approx(0.3)
    assert 0 < gain.low < gain.high
    assert found.kept_gain == {"accuracy@1": pytest.approx(0.75), "auroc": None}, "AUROC is 1 with all of them"
    assert [(depth.candidates, depth.accuracy_at_1) for depth in found.depths] == [(1, 0.5), (2, 0.8)]
    assert found.deviations == {}


def test_the_bi_encoder_alone_has_nothing_beside_it() -> None:
    """Without a cross-encoder there are its figures, and no comparison."""
    found = compare([trial(20)], 0.3, seed=1)
    assert list(found.reports) == ["alone"]
    assert (found.differences, found.kept_gain, found.depths) == ({}, {}, [])


def test_draws_are_averaged() -> None:
    """Figures of several draws are means, with their standard deviation; what has no figure has none."""
    found = compare([trial(20, cascade=20, full=20), trial(24, cascade=24, full=20)], 0.3, seed=1)
    assert found.reports["alone"].accuracy_at_1 == pytest.approx(0.55)
    assert found.deviations["alone"]["accuracy@1"] == pytest.approx(0.5**0.5 * 0.1)
    assert "clarify_hit" not in found.deviations["alone"]
    assert found.reports["alone"].messages == 50
    assert found.reports["alone"].confirmations == {"not_needed": 100}
    assert found.kept_gain["accuracy@1"] is None, "full confirmation loses"


@pytest.mark.parametrize(("right", "worse"), [(10, {"accuracy@1", "overall_accuracy", "precision"}), (29, set())])
def test_a_regression_is_more_than_chance(right: int, worse: set[str]) -> None:
    """An interval wholly below zero is a regression; a single message fewer is not."""
    found = versus(trial(right), trial(30), "other", 0.3, seed=1)
    assert set(found.regressions) == worse
    assert (found.against, found.report.accuracy_at_1) == ("other", 0.75)
    assert set(versus(trial(30), trial(right), "other", 0.3, seed=1).regressions) == set()
