"""The warm-up where shapes are not fixed: what is measured, and when it ends."""

from collections.abc import Iterator, Sequence
from itertools import count

import pytest

from export.bundle import Bundle
from export.runtime import encoder as module
from export.runtime.bi_encoder import BiEncoder
from export.runtime.encoder import Floats
from export.runtime.session import CPU, Device
from export.runtime.tokens import Tokens

Runs = list[tuple[int, int, int]]


@pytest.fixture(scope="module")
def double(bundle: Bundle) -> BiEncoder:
    """The default model on two sessions."""
    return BiEncoder(bundle, "int8", Device(CPU), sessions=2)


@pytest.fixture
def runs(double: BiEncoder, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Session, rows and tokens of every run."""
    runs: Runs = []
    run = double.run

    def note(batch: Sequence[Tokens], session: int = 0) -> Floats:
        runs.append((session, len(batch), len(batch[0])))
        return run(batch, session)

    monkeypatch.setattr(double, "run", note)
    return runs


def ticking(step: float) -> Iterator[float]:
    """A clock that moves on by as much whenever it is read."""
    return (tick * step for tick in count())


def test_every_measured_shape_is_run_twice(double: BiEncoder, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run of a shape is not reported; no session has its first run still before it."""
    monkeypatch.setattr(module, "perf_counter", ticking(0.001).__next__)
    measured = double.warm_up(max_rows=4, max_batch_tokens=64)
    shapes = [(1, 8), (1, 16), (2, 8), (1, 32), (2, 16), (4, 8), (1, 64), (2, 32), (4, 16)]
    assert [(m.rows, m.tokens) for m in measured] == shapes
    assert all(m.seconds == pytest.approx(0.001) for m in measured)
    assert [run[1:] for run in runs if run[0] == 0] == [shape for shape in shapes for _ in range(2)]
    assert {session for session, _, _ in runs} == {0, 1}


def test_measuring_ends_in_time(double: BiEncoder, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that is not expected to be done in time is not begun; the smallest is measured however slow it is."""
    monkeypatch.setattr(module, "perf_counter", ticking(0.1).__next__)
    assert [(m.rows, m.tokens) for m in double.warm_up(seconds=0.1)] == [(1, 8)]
    assert {session for session, _, _ in runs} == {0, 1}


def test_limits_below_the_smallest_shape(double: BiEncoder, runs: Runs) -> None:
    """Limits that nothing of the grid is within still leave one shape to run."""
    assert [(m.rows, m.tokens) for m in double.warm_up(max_rows=1, max_batch_tokens=4)] == [(1, 8)]
