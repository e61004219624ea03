"""What an evaluation prints: a table for people, lines below it, and the sentence of a regression."""

import pytest

from export.errors import FaqwireError
from intents.comparison import compare, versus
from intents.systems import Trial
from server.cli.console import out
from server.cli.findings import Findings
from tests.intents.judging import judged, run


def trial(right: int, seconds: float = 0.02) -> Trial:
    """Twenty in-scope messages, of which so many are right, and no out-of-scope ones."""
    return Trial(
        {"alone": run(*(judged("a", "answer", "a" if i < right else "b") for i in range(20)), seconds=seconds)}
    )


def findings(*trials: Trial, against: Trial | None = None) -> Findings:
    """What an evaluation of these draws found."""
    beside = None if against is None else versus(trials[0], against, "var/other", 0.3, seed=1)
    return Findings("a FAQ", {}, ("a note",), compare(trials, 0.3, seed=1), beside, trials[0], {}, {})


def shown(found: Findings, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The table as it is printed: its rows without their lines, and its title and caption."""
    out.print(found.as_table())
    return [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]


def test_one_system(capsys: pytest.CaptureFixture[str]) -> None:
    """What there was no message for has no figure; with one system nothing is said of confirmation."""
    lines = shown(findings(trial(17)), capsys)
    assert {"a FAQ", "accuracy@1 0.8500", "AUROC -", "out-of-scope recall -", "model ms a message 1.00"} <= set(lines)
    assert "20 in-scope messages, 0 out-of-scope messages" in lines
    assert not any(line.startswith("not_needed") for line in lines)
    assert list(findings(trial(17)).lines()) == ["a note"]


def test_draws(capsys: pytest.CaptureFixture[str]) -> None:
    """Means stand with their standard deviations."""
    lines = shown(findings(trial(16, 0.02), trial(18, 0.06)), capsys)
    assert {"accuracy@1 0.8500 ± 0.0707", "model ms a message 2.00 ± 1.41", "AUROC -"} <= set(lines)


def test_another_index(capsys: pytest.CaptureFixture[str]) -> None:
    """The other index has a column, its differences have lines, and a loss is refused in one sentence."""
    worse = findings(trial(2), against=trial(18))
    assert "accuracy@1 0.1000 0.9000" in shown(worse, capsys)
    told = [line for line in worse.lines() if line.startswith("over var/other, ")]
    assert [line.partition(":")[0] for line in told] == [
        *("over var/other, accuracy@1", "over var/other, overall accuracy", "over var/other, precision"),
    ]
    with pytest.raises(FaqwireError, match=r"^this is worse than var/other in accuracy@1 \(-0\.8000, 95 % interval -"):
        worse.refuse_regression()
    findings(trial(18), against=trial(2)).refuse_regression()
    findings(trial(18)).refuse_regression()
