"""What judged messages come to, in figures: `docs/evaluation.md` says what each of them means.

Every figure that weighs messages is a function of their columns and a weight for each. So the same code counts them as
they are, reweighs them to another share of out-of-scope messages, and resamples them (`intents.bootstrap`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from intents.calibrate import Booleans, Doubles, calibration_error
from intents.cascade import Confirmation
from intents.decide import MAX_OPTIONS
from intents.entries import OUT_OF_SCOPE
from intents.evaluate import Judged
from intents.systems import Run


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one system; shares are 0 to 1, None where there was no message of the kind, or no decision.

    Attributes:
        messages, in_scope, out_of_scope: how many there were.
        accuracy_at_1, accuracy_at_3: share of in-scope messages whose entry is first, or among the first three,
            whatever the confidence.
        mrr: mean reciprocal rank of the right entry among the candidates, 0 where it is not one of them.
        auroc: probability that an in-scope message has a higher confidence than an out-of-scope one.
        answered: share of in-scope messages that got an answer or a hand-off: coverage at the chosen point.
        precision: share of answered messages whose entry was right; an answer to an out-of-scope message is wrong.
        reweighted_precision: the same at the share of out-of-scope messages that calibration assumed.
        clarified: share of in-scope messages that got options.
        clarify_hit: share of those whose entry was among the options.
        out_of_scope_recall: share of out-of-scope messages that got "no_match" or a hand-off.
        overall_accuracy: share of all messages taken for what they are, out of scope being a class of its own, and
            options right where the right entry is among them.
        mcc: Matthews correlation coefficient of the same classes, -1 to 1.
        calibration_error: mean distance of confidence from the share that is right, in 15 bins of equal mass.
        reweighted_calibration_error: the same at the share of out-of-scope messages that calibration assumed.
        risk_coverage_area: mean share of wrong ones among the most confident messages, over how many these are.
        share_confirmed: share of all messages of which the cross-encoder read candidates.
        pairs: candidates that it read, a message.
        milliseconds: of wall clock that models took, a message, in batches.
        search_agreement: share of all messages whose top entry, before confirmation, was that of an exact scan.
        confirmations: how many messages ended with each confirmation.
    """

    messages: int
    in_scope: int
    out_of_scope: int
    accuracy_at_1: float | None = msgspec.field(name="accuracy@1")
    accuracy_at_3: float | None = msgspec.field(name="accuracy@3")
    mrr: float | None
    auroc: float | None
    answered: float | None
    precision: float | None
    reweighted_precision: float | None
    clarified: float | None
    clarify_hit: float | None
    out_of_scope_recall: float | None
    overall_accuracy: float | None
    mcc: float | None
    calibration_error: float | None
    reweighted_calibration_error: float | None
    risk_coverage_area: float
    share_confirmed: float
    pairs: float
    milliseconds: float
    search_agreement: float | None
    confirmations: dict[Confirmation, int]


@dataclass(frozen=True)
class Columns:
    """Judged messages as (n,) columns.

    Attributes:
        in_scope: whether an entry answers the message.
        right: whether the first candidate does.
        confidence: that it does.
        answered: whether it was given to the visitor; False where nothing decides.
        recognised: whether the message was taken for what it is.
    """

    in_scope: Booleans
    right: Booleans
    confidence: Doubles
    answered: Booleans
    recognised: Booleans


Figure = Callable[[Columns, Doubles], float | None]
"""One figure of columns and a weight, at least 0, for each message; None where nothing is to be counted."""


def columns_of(judged: Sequence[Judged]) -> Columns:
    """The columns of judged messages."""
    return Columns(
        in_scope=np.array([j.in_scope for j in judged], dtype=bool),
        right=np.array([j.is_right for j in judged], dtype=bool),
        confidence=np.array([j.confidence for j in judged], dtype=np.float64),
        answered=np.array([j.is_answered for j in judged], dtype=bool),
        recognised=np.array([j.label == _class_of(j) for j in judged], dtype=bool),
    )


def _class_of(judged: Judged) -> str:
    return OUT_OF_SCOPE if judged.message.expected is None else judged.message.expected


def accuracy_at_1(columns: Columns, weight: Doubles) -> float | None:
    """See `Report`."""
    return _share(columns.right, columns.in_scope, weight)


def precision(columns: Columns, weight: Doubles) -> float | None:
    """See `Report`."""
    return _share(columns.right, columns.answered, weight)


def overall_accuracy(columns: Columns, weight: Doubles) -> float | None:
    """See `Report`."""
    return _share(columns.recognised, np.ones_like(columns.recognised), weight)


def auroc(columns: Columns, weight: Doubles) -> float | None:
    """See `Report`; equal confidences count half."""
    # As scikit-learn's `roc_auc_score`, which takes a millisecond for each of a thousand resamples to check its input.
    _, level = np.unique(columns.confidence, return_inverse=True)
    ours = np.bincount(level, weights=weight * columns.in_scope)
    others = np.bincount(level, weights=weight * ~columns.in_scope)
    pairs = float(ours.sum() * others.sum())
    return float(ours @ (np.cumsum(others) - others / 2)) / pairs if pairs else None


def risk_coverage(columns: Columns) -> tuple[Doubles, Doubles]:
    """Risk as a function of coverage (Geifman and El-Yaniv 2017).

    Returns:
        (n,) shares of all messages, and (n,) shares of those that are wrong among so many of the most confident.
        Messages of equal confidence are as wrong as they are on average: their order means nothing.
    """
    _, level = np.unique(-columns.confidence, return_inverse=True)
    wrong = np.bincount(level, weights=~columns.right) / np.bincount(level)
    count = np.arange(1, len(level) + 1)
    return count / len(level), np.cumsum(wrong[np.sort(level)]) / count


def weights_at(share: float, columns: Columns) -> Doubles | None:
    """A weight for each message, such that this share of them is out of scope; None where one kind is lacking.

    Args:
        share: 0 to 1.
        columns: of the messages.
    """
    ours, others = int(columns.in_scope.sum()), int((~columns.in_scope).sum())
    return np.where(columns.in_scope, (1 - share) / ours, share / others) if ours and others else None


def summarise(run: Run, share: float) -> Report:
    """The figures of one system's messages, at least one.

    Args:
        run: the messages.
        share: of out-of-scope messages that calibration assumed.
    """
    judged, columns = run.judged, columns_of(run.judged)
    even, expected = np.ones(len(judged)), weights_at(share, columns)
    ours = [j for j in judged if j.in_scope]
    ranks = [j.ranking.index(j.message.expected) + 1 if j.message.expected in j.ranking else 0 for j in ours]
    compared = [j for j in judged if j.agrees is not None]
    return Report(
        messages=len(judged),
        in_scope=len(ours),
        out_of_scope=len(judged) - len(ours),
        accuracy_at_1=accuracy_at_1(columns, even),
        accuracy_at_3=_ratio(sum(1 <= rank <= MAX_OPTIONS for rank in ranks), len(ours)),
        mrr=_ratio(sum(1 / rank for rank in ranks if rank), len(ours)),
        auroc=auroc(columns, even),
        **_decided(run, columns, even, expected),
        risk_coverage_area=float(risk_coverage(columns)[1].mean()),
        share_confirmed=sum(j.read > 0 for j in judged) / len(judged),
        pairs=sum(j.read for j in judged) / len(judged),
        milliseconds=1000 * run.seconds / len(judged),
        search_agreement=_ratio(sum(bool(j.agrees) for j in compared), len(compared)),
        confirmations=dict(Counter(j.confirmation for j in judged).most_common()),
    )


_AT_THE_CHOSEN_POINT = (
    *("answered", "precision", "reweighted_precision", "clarified", "clarify_hit", "out_of_scope_recall"),
    *("overall_accuracy", "mcc", "calibration_error", "reweighted_calibration_error"),
)


def _decided(run: Run, columns: Columns, even: Doubles, expected: Doubles | None) -> dict[str, float | None]:
    """The figures of decisions and of calibrated confidence; None where nothing decides."""
    if any(j.decision is None for j in run.judged):
        return dict.fromkeys(_AT_THE_CHOSEN_POINT)
    ours, others = [j for j in run.judged if j.in_scope], [j for j in run.judged if not j.in_scope]
    clarified = [j for j in ours if j.decision == "clarify"]
    error = calibration_error
    return {
        "answered": _ratio(sum(j.is_answered for j in ours), len(ours)),
        "precision": precision(columns, even),
        "reweighted_precision": None if expected is None else precision(columns, expected),
        "clarified": _ratio(len(clarified), len(ours)),
        "clarify_hit": _ratio(sum(j.message.expected in j.offered for j in clarified), len(clarified)),
        "out_of_scope_recall": _ratio(sum(j.decision in {"no_match", "handoff"} for j in others), len(others)),
        "overall_accuracy": overall_accuracy(columns, even),
        "mcc": _mcc(run.judged),
        "calibration_error": error(columns.confidence, columns.right, even),
        "reweighted_calibration_error": None
        if expected is None
        else error(columns.confidence, columns.right, expected),
    }


def _mcc(judged: Sequence[Judged]) -> float | None:
    from sklearn.metrics import matthews_corrcoef

    classes, taken_for = [_class_of(j) for j in judged], [j.label for j in judged]
    return float(matthews_corrcoef(classes, taken_for)) if len({*classes, *taken_for}) > 1 else None


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _share(part: Booleans, whole: Booleans, weight: Doubles) -> float | None:
    """The weighted share of `whole` that is `part` too; None of nothing."""
    total = float(weight[whole].sum())
    return float(weight[whole & part].sum()) / total if total else None
