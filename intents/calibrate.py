"""The confidence map and the thresholds.

A logistic regression on evidence and margin of the messages that `intents.holdout` makes, weighted to the expected
share of out-of-scope messages (three in five of them near), gives confidence (Platt 1999, "Probabilistic outputs for
support vector machines", with two features). The thresholds are then read off the same samples: the lowest confidence
above which the target precision holds, and the lowest at which an isotonic fit says that the right entry is more
likely than not among the options that "did you mean" would offer.
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from export.errors import FaqwireError
from intents.candidates import Candidate
from intents.decide import Confidence, Policy, offerable
from intents.holdout import Messages
from intents.manifest import Calibration, Expected

# The share of near ones among out-of-scope messages: visitors ask about the site, and seldom about anything else.
NEAR = 0.6
LIKELY = 0.5  # right is more likely than wrong
UNREACHED = 1.01  # a threshold above every confidence

Doubles = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Samples:
    """Scored messages, as columns.

    Attributes:
        evidence, margin: the top candidate's.
        option_evidence, option_margin: those of the first candidate that could be offered as "did you mean"; -1 where
            none could.
        right: whether the top entry is right.
        among: whether the right entry is among those that would be offered.
        in_scope: whether the message has a right entry at all.
        weight: of each sample; they sum to 1.
    """

    evidence: Doubles
    margin: Doubles
    option_evidence: Doubles
    option_margin: Doubles
    right: Booleans
    among: Booleans
    in_scope: Booleans
    weight: Doubles


def require_scikit_learn() -> None:
    """Find out before the work, and not after it, that calibration cannot run.

    Raises:
        FaqwireError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise FaqwireError("building an index needs scikit-learn; install `faqwire[build]`")


def calibrate(
    messages: Messages,
    *,
    target_precision: float,
    out_of_scope_share: float,
    smalltalk: frozenset[int] = frozenset(),
) -> tuple[Policy, Calibration]:
    """Compute how an index decides.

    Args:
        messages: what to learn from.
        target_precision: of answered messages, at the expected share.
        out_of_scope_share: expected share of messages that the FAQ does not answer.
        smalltalk: entries that are answered, and never offered.
    """
    ranked = [posed.candidates for posed in messages.all()]
    samples = samples_of(messages, ranked, out_of_scope_share, smalltalk)
    policy = fit_policy(samples, target_precision)
    values, options = confidences(policy.confidence, samples)
    answered = values >= policy.answer_at
    offered = (options >= policy.clarify_at) & ~answered
    notes = list(messages.notes)
    if not answered.any():
        notes.append(f"a precision of {target_precision:.2f} was not reached: only exact phrasings are answered")
    expected = expected_of(values, samples.right, samples, answered, offered)
    return policy, Calibration(
        **msgspec.structs.asdict(expected),
        target_precision=target_precision,
        out_of_scope_share=out_of_scope_share,
        in_scope=len(messages.in_scope),
        near=len(messages.near),
        far=len(messages.far),
        set_aside=messages.set_aside,
        notes=tuple(notes),
    )


def samples_of(
    messages: Messages, ranked: Sequence[Sequence[Candidate]], share: float, smalltalk: frozenset[int]
) -> Samples:
    """Messages as columns.

    Args:
        messages: what was asked.
        ranked: the candidates of each, best first, in the order of `messages.all()`.
        share: expected share of out-of-scope messages.
        smalltalk: entries that are never offered.
    """
    posed = messages.all()
    flat = [_scored(found, p.expected, smalltalk) for found, p in zip(ranked, posed, strict=True)]
    groups = [(group, odds) for group, odds in ((messages.near, NEAR), (messages.far, 1 - NEAR)) if group]
    total = sum(odds for _, odds in groups)
    weights = [np.full(len(messages.in_scope), (1 - share) / len(messages.in_scope))]
    weights += [np.full(len(group), share * odds / total / len(group)) for group, odds in groups]
    weight = np.concatenate(weights)
    return Samples(
        evidence=np.array([s.evidence for s in flat]),
        margin=np.array([s.margin for s in flat]),
        option_evidence=np.array([s.option_evidence for s in flat]),
        option_margin=np.array([s.option_margin for s in flat]),
        right=np.array([s.right for s in flat]),
        among=np.array([s.among for s in flat]),
        in_scope=np.array([p.expected is not None for p in posed]),
        weight=weight / weight.sum(),
    )


@dataclass(frozen=True)
class _Scored:
    evidence: float
    margin: float
    option_evidence: float
    option_margin: float
    right: bool
    among: bool


def _scored(ranked: Sequence[Candidate], expected: int | None, smalltalk: frozenset[int]) -> _Scored:
    if not ranked:
        return _Scored(0.0, 0.0, -1.0, -1.0, right=False, among=False)
    options = offerable(ranked, smalltalk.__contains__)
    first = (options[0].evidence, options[0].margin) if options else (-1.0, -1.0)
    among = expected in [c.entry for c in options]
    return _Scored(ranked[0].evidence, ranked[0].margin, *first, right=ranked[0].entry == expected, among=among)


def fit_policy(samples: Samples, target: float) -> Policy:
    """The confidence map of samples, and its thresholds for a target precision."""
    columns = {"evidence": samples.evidence, "margin": samples.margin}
    bias, weights = fit_monotone(columns, samples.right, samples.weight)
    confidence = Confidence(bias=bias, **weights)
    values, options = confidences(confidence, samples)
    answer_at = find_answer_at(values, samples.right, samples.weight, target)
    clarify_at = find_clarify_at(options, samples, answer_at)
    return Policy(confidence=confidence, answer_at=answer_at, clarify_at=clarify_at)


def fit_monotone(columns: Mapping[str, Doubles], right: Booleans, weight: Doubles) -> tuple[float, dict[str, float]]:
    """A logistic regression without negative weights: with one, confidence would fall when a score rises.

    Args:
        columns: (n,) features, by name.
        right: (n,) what to tell apart.
        weight: (n,) of each sample.

    Returns:
        The bias, and the weight of every column; 0 for those that are of no use.
    """
    from sklearn.linear_model import LogisticRegression

    weights = dict.fromkeys(columns, 0.0)
    if right.all() or not right.any():
        # Nothing to separate: whatever the scores, the answer to "is it right" is the same.
        return 20.0 if right.all() else -20.0, weights
    used = dict(columns)
    while used:
        model = LogisticRegression(C=1e4, max_iter=1000)
        model.fit(np.column_stack(list(used.values())), right, sample_weight=weight * (len(weight) / weight.sum()))
        fitted = dict(zip(used, map(float, model.coef_[0]), strict=True))
        worst = min(fitted, key=lambda name: fitted[name])
        if fitted[worst] >= 0:
            return float(model.intercept_[0]), weights | fitted
        del used[worst]  # and without it the others are fitted again
    # None tells right from wrong: every sample is as likely to be right as any other.
    share = float(np.clip(np.average(right, weights=weight), 1e-9, 1 - 1e-9))
    return float(np.log(share / (1 - share))), weights


def confidences(confidence: Confidence, samples: Samples) -> tuple[Doubles, Doubles]:
    """The confidence of each sample's top entry, and that with which options would be offered."""
    top = _logistic(confidence, samples.evidence, samples.margin)
    return top, np.minimum(top, _logistic(confidence, samples.option_evidence, samples.option_margin))


def _logistic(confidence: Confidence, evidence: Doubles, margin: Doubles) -> Doubles:
    logits = confidence.bias + confidence.evidence * evidence + confidence.margin * margin
    # As `Confidence.of` has it, to the last bit: a threshold is the confidence of a sample, and that must reach it.
    powers = [math.exp(-logit) for logit in np.clip(logits, -700.0, 700.0).tolist()]
    values: Doubles = 1.0 / (1.0 + np.array(powers))
    return values


def find_answer_at(values: Doubles, right: Booleans, weight: Doubles, target: float) -> float:
    """The lowest confidence at and above which precision is at least the target; above 1 if there is none.

    Never where the answer is more likely wrong than right: in a FAQ of a few entries the easy messages would pay for
    it, and precision would still hold.
    """
    order = np.argsort(-values, kind="stable")
    mass = weight[order]
    precision = np.cumsum(mass * right[order]) / np.cumsum(mass)
    last_of_equals = np.append(np.diff(values[order]) != 0, True)  # a threshold takes all of equal confidence, or none
    enough = np.flatnonzero((precision >= target) & last_of_equals & (values[order] >= LIKELY))
    return float(values[order][enough[-1]]) if len(enough) else UNREACHED


def find_clarify_at(options: Doubles, samples: Samples, answer_at: float) -> float:
    """The lowest confidence at which the right entry is more likely than not among the options."""
    from sklearn.isotonic import IsotonicRegression

    chance = IsotonicRegression(y_min=0, y_max=1, increasing=True)
    likely = chance.fit_transform(options, samples.among, sample_weight=samples.weight) >= LIKELY
    return min(float(options[likely].min()), answer_at) if likely.any() else answer_at


def expected_of(values: Doubles, right: Booleans, samples: Samples, answered: Booleans, offered: Booleans) -> Expected:
    """What decisions on samples come to.

    Args:
        values: (n,) confidence of the top entries.
        right: (n,) whether they are right.
        samples: what was decided on.
        answered: (n,) which were answered.
        offered: (n,) which got options.
    """
    weight, ours = samples.weight, samples.in_scope
    return Expected(
        precision=share_of(right, answered, weight) if answered.any() else None,
        answered=share_of(answered, ours, weight),
        clarified=share_of(offered, ours, weight),
        refused=share_of(~answered & ~offered, ~ours, weight),
        calibration_error=calibration_error(values, right, weight),
    )


def log_loss(right: Booleans, confidence: Doubles, weight: Doubles) -> float:
    """The weighted mean of minus the logarithm of the probability that was given to what came true.

    Args:
        right: (n,) whether each was right.
        confidence: (n,) probabilities; 0 and 1 count as next to them.
        weight: (n,) of each; they need not sum to 1.
    """
    given = np.clip(np.where(right, confidence, 1.0 - confidence), 1e-12, None)
    return float(np.average(-np.log(given), weights=weight))


def calibration_error(confidence: Doubles, right: Booleans, weight: Doubles, bins: int = 15) -> float:
    """Mean distance between confidence and the share that is right, over bins of equal mass (Guo et al. 2017).

    Args:
        confidence: (n,) probabilities.
        right: (n,) whether each was right.
        weight: (n,) of each; they need not sum to 1.
        bins: how many.
    """
    order = np.argsort(confidence, kind="stable")
    mass = np.cumsum(weight[order]) / weight.sum()
    number = np.minimum((mass * bins - 1e-9).astype(int), bins - 1)
    error = 0.0
    for one in range(bins):
        members = order[number == one]
        if len(members):
            error += abs(float(np.sum(weight[members] * (confidence[members] - right[members]))))
    return error / float(weight.sum())


def share_of(part: Booleans, whole: Booleans, weight: Doubles) -> float:
    """The weighted share of `whole` that is `part` too; 0 of nothing."""
    total = float(weight[whole].sum())
    return float(weight[whole & part].sum()) / total if total else 0.0
