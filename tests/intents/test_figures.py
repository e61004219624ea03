"""What judged messages come to: figures computed by hand, and what holds for any messages."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from intents.figures import (
    Columns,
    Report,
    auroc,
    columns_of,
    overall_accuracy,
    precision,
    risk_coverage,
    summarise,
    weights_at,
)
from intents.search import Positions
from tests.intents.judging import judged, run

JUDGED = (
    judged("returns", "answer", "returns", "hello", agrees=None, confidence=1.0),  # right
    judged("returns", "answer", "hello", "returns", agrees=False),  # wrong, second
    judged("human", "handoff", "human"),  # right
    judged("hello", "clarify", "returns", "human", "hello", offered=("returns", "human", "hello")),  # a hit, third
    judged("hello", "clarify", "returns", "human", "fax", "hello", offered=("returns", "human", "fax")),  # fourth
    judged("fax", "no_match", "returns", "human"),  # not among them
    judged("fax", "no_match", confidence=0.0),  # nothing retrieved
    judged("fax", "no_match", "fax", confirmation="rejected"),  # first, but too unsure
    judged(None, "answer", "returns", confirmation="confirmed"),  # wrong
    judged(None, "handoff", "human"),  # silent enough
    judged(None, "clarify", "returns", offered=("returns",)),
    judged(None, "no_match", "returns", confirmation="rejected"),
)


def test_figures_by_hand() -> None:
    """Every figure is the share that its definition says, computed here by hand."""
    report = summarise(run(*JUDGED, seconds=0.6), share=0.5)
    assert (report.messages, report.in_scope, report.out_of_scope) == (12, 8, 4)
    assert report.accuracy_at_1 == pytest.approx(3 / 8)
    assert report.accuracy_at_3 == pytest.approx(5 / 8)
    assert report.mrr == pytest.approx((1 + 1 / 2 + 1 + 1 / 3 + 1 / 4 + 0 + 0 + 1) / 8)
    # In scope one is surer than all four others, one is less sure, and six are as sure.
    assert report.auroc == pytest.approx((4 + 6 * 4 / 2) / (8 * 4))
    assert report.answered == pytest.approx(3 / 8)
    assert report.precision == pytest.approx(2 / 4)
    # Half of all messages weigh 1/16 each, the other half 1/8.
    assert report.reweighted_precision == pytest.approx((2 / 16) / (3 / 16 + 1 / 8))
    assert report.clarified == pytest.approx(2 / 8)
    assert report.clarify_hit == pytest.approx(1 / 2)
    assert report.out_of_scope_recall == pytest.approx(2 / 4)
    # Right: the first, the hand-off, one of the options, and of the last four the hand-off and the silence.
    assert report.overall_accuracy == pytest.approx(5 / 12)
    assert report.mcc == pytest.approx(
        matthews_corrcoef(
            [*("returns", "returns", "human", "hello", "hello"), *["fax"] * 3, *["oos"] * 4],
            [*("returns", "hello", "human", "hello", "returns"), *["oos"] * 3, *["returns", "oos"] * 2],
        )
    )
    assert report.search_agreement == pytest.approx(10 / 11)
    assert report.share_confirmed == pytest.approx(3 / 12)
    assert report.pairs == pytest.approx(15 / 12)
    assert report.milliseconds == pytest.approx(50)
    assert report.confirmations == {"not_needed": 9, "rejected": 2, "confirmed": 1}


def test_calibration_error_and_area_by_hand() -> None:
    """Both count in-scope and out-of-scope messages together, and a message of the latter is never right."""
    four = run(
        judged("a", "answer", "a", confidence=0.9),
        judged("a", "answer", "b", confidence=0.8),
        judged("a", "answer", "a", confidence=0.7),
        judged(None, "no_match", "a", confidence=0.1),
    )
    report = summarise(four, share=0.25)
    assert report.calibration_error == pytest.approx((0.1 + 0.8 + 0.3 + 0.1) / 4)
    assert report.reweighted_calibration_error == report.calibration_error, "a quarter is what there is"
    assert report.risk_coverage_area == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_what_was_not_asked_has_no_figure() -> None:
    """A share of nothing is None, and not a zero that looks like a failure."""
    only_out = summarise(run(judged(None, "no_match", agrees=None)), share=0.3)
    assert (only_out.accuracy_at_1, only_out.mrr, only_out.answered, only_out.precision) == (None,) * 4
    assert (only_out.clarify_hit, only_out.search_agreement, only_out.auroc, only_out.mcc) == (None,) * 4
    assert (only_out.reweighted_precision, only_out.reweighted_calibration_error) == (None, None)
    assert (only_out.out_of_scope_recall, only_out.overall_accuracy) == (1, 1)
    only_in = summarise(run(judged("hello", "no_match")), share=0.3)
    assert (only_in.out_of_scope_recall, only_in.precision, only_in.accuracy_at_1) == (None, None, 0)


def test_without_decisions_there_is_no_chosen_point() -> None:
    """The confirmer alone ranks and separates; what would take thresholds is None."""
    report = summarise(
        run(judged("a", None, "a", "b", confidence=0.9), judged(None, None, "a", confidence=0.2)), share=0.3
    )
    assert (report.accuracy_at_1, report.mrr, report.auroc) == (1, 1, 1)
    assert (report.answered, report.precision, report.reweighted_precision, report.clarified) == (None,) * 4
    assert (report.overall_accuracy, report.mcc, report.calibration_error, report.out_of_scope_recall) == (None,) * 4


def test_the_report_has_the_names_others_rely_on() -> None:
    """As JSON, the accuracies are `accuracy@1` and `accuracy@3`, and every figure comes back as it was."""
    report = summarise(run(*JUDGED), share=0.3)
    data = msgspec.json.encode(report)
    assert set(msgspec.json.decode(data)) >= {
        *("messages", "in_scope", "out_of_scope", "accuracy@1", "accuracy@3", "mrr", "answered", "precision"),
        *("clarified", "clarify_hit", "out_of_scope_recall", "search_agreement", "share_confirmed", "confirmations"),
    }
    assert msgspec.json.decode(data, type=Report) == report


columns = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 8), st.booleans()), min_size=1, max_size=40
).map(
    lambda rows: Columns(
        in_scope=np.array([ours for ours, *_ in rows]),
        right=np.array([ours and right for ours, right, *_ in rows]),
        confidence=np.array([level / 8 for _, _, level, _ in rows]),
        answered=np.array([answered for *_, answered in rows]),
        recognised=np.array([right for _, right, *_ in rows]),
    )
)


@given(columns, st.integers(0, 9))
def test_auroc_is_that_of_scikit_learn(one: Columns, seed: int) -> None:
    """With any weights, a message that weighs nothing included; of one kind alone there is none."""
    weight = np.random.default_rng(seed).integers(0, 3, len(one.right)).astype(np.float64)
    found = auroc(one, weight)
    if len(set(one.in_scope[weight > 0].tolist())) < 2:
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(one.in_scope, one.confidence, sample_weight=weight))


@given(columns)
def test_perfect_confidences_separate_perfectly(one: Columns) -> None:
    """Where confidence is being in scope, AUROC is 1; where it is being right, no order has a smaller area."""
    perfect = Columns(one.in_scope, one.right, one.in_scope.astype(float), one.answered, one.recognised)
    assert auroc(perfect, np.ones(len(one.right))) in {1.0, None}
    best = Columns(one.in_scope, one.right, one.right.astype(float), one.answered, one.recognised)
    assert risk_coverage(best)[1].mean() <= risk_coverage(one)[1].mean() + 1e-12


def taken(one: Columns, places: Positions) -> Columns:
    """The messages at these places."""
    return Columns(
        one.in_scope[places], one.right[places], one.confidence[places], one.answered[places], one.recognised[places]
    )


@given(columns)
def test_risk_ends_at_the_share_that_is_wrong(one: Columns) -> None:
    """At full coverage nothing is chosen; and the order of equally confident messages does not count."""
    coverage, risk = risk_coverage(one)
    assert (coverage[-1], risk[-1]) == (1, pytest.approx((~one.right).mean()))
    back = taken(one, np.arange(len(one.right))[::-1])
    assert risk_coverage(back)[1] == pytest.approx(risk)


@given(columns, st.floats(0.01, 0.95), st.integers(2, 4))
def test_reweighted_figures_do_not_depend_on_how_many_there_are(one: Columns, share: float, times: int) -> None:
    """Asking every out-of-scope message several times leaves what is reweighted as it was."""
    more = np.concatenate([np.arange(len(one.right)), *[np.flatnonzero(~one.in_scope)] * (times - 1)])
    again = taken(one, more)
    before, after = weights_at(share, one), weights_at(share, again)
    if before is None or after is None:
        assert (before, after) == (None, None)
        return
    assert (before.sum(), before[~one.in_scope].sum()) == (pytest.approx(1), pytest.approx(share))
    for figure in (precision, overall_accuracy):
        assert figure(one, before) == pytest.approx(figure(again, after))


def test_columns_of_what_was_judged() -> None:
    """The columns say of each message what the figures are made of."""
    one = columns_of([JUDGED[0], JUDGED[9], JUDGED[8]])
    assert one.in_scope.tolist() == [True, False, False]
    assert one.right.tolist() == [True, False, False]
    assert one.answered.tolist() == [True, False, True]
    assert one.recognised.tolist() == [True, True, False]
