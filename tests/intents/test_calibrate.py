"""The confidence map and the thresholds that a build computes."""

from pathlib import Path

import numpy as np
import pytest

from export.runtime.bi_encoder import BiEncoder
from intents.calibrate import (
    NEAR,
    Samples,
    calibrate,
    calibration_error,
    confidences,
    find_answer_at,
    fit_policy,
)
from intents.candidates import Candidate
from intents.decide import Confidence, Policy, decide
from intents.entries import Entry, Faq
from intents.holdout import Messages, hold_out
from intents.index import FaqIndex
from intents.items import items_of
from intents.labelled import read_out_of_scope
from intents.manifest import Calibration
from intents.weighing import choose_weights
from tests.intents.synthetic import synthetic

ROUNDING = 1e-9


def run(
    entries: int, phrasings: int, noise: float, *, answers: bool = True, target: float = 0.9, seed: int = 1
) -> tuple[Policy, Calibration, Messages]:
    """Calibrate a synthetic FAQ as a build does."""
    messages = synthetic(entries, phrasings, noise, answers=answers, seed=seed).messages()
    policy, found = calibrate(messages, target_precision=target, out_of_scope_share=0.3)
    return policy, found, messages


@pytest.mark.parametrize("noise", [0.2, 0.8, 3.0, 100.0])
@pytest.mark.parametrize(("entries", "phrasings"), [(1, 1), (1, 6), (3, 2), (12, 1), (12, 6)])
@pytest.mark.parametrize("answers", [True, False])
def test_any_faq_gives_a_policy_that_holds(entries: int, phrasings: int, noise: float, *, answers: bool) -> None:
    """Clear or hopeless, with one entry or many: thresholds are in order, no weight is negative, precision is kept."""
    for seed in range(2):
        policy, found, _ = run(entries, phrasings, noise, answers=answers, seed=seed)
        assert 0 <= policy.clarify_at <= policy.answer_at <= 1.01
        assert policy.answer_at >= 0.5
        assert policy.confidence.evidence >= 0
        assert policy.confidence.margin >= 0
        assert np.isfinite(policy.confidence.bias)
        assert found.precision is None or found.precision >= 0.9 - ROUNDING
        assert found.precision is not None or found.answered == 0
        for share in (found.precision or 0.0, found.answered, found.clarified, found.refused, found.calibration_error):
            assert 0 <= share <= 1


@pytest.mark.parametrize("target", [0.7, 0.9, 0.97])
def test_the_target_precision_holds_when_the_samples_are_decided(target: float) -> None:
    """Deciding the samples by the policy, at the expected share of out-of-scope messages, gives what was promised."""
    policy, found, messages = run(40, 6, 0.8, target=target)
    entries = [Entry(id=f"e{i}", question="q", answer="a") for i in range(40)]
    right = answered = 0.0
    for share, group in ((0.7, messages.in_scope), (0.3 * NEAR, messages.near), (0.3 * (1 - NEAR), messages.far)):
        for posed in group:
            decision = decide(posed.candidates, entries, policy)
            answered += share / len(group) * (decision.kind == "answer")
            right += share / len(group) * (decision.kind == "answer" and decision.entry == posed.expected)
    assert found.precision is not None
    assert right / answered == pytest.approx(found.precision, abs=1e-6)
    assert found.precision >= target - ROUNDING
    assert found.in_scope == 240
    assert found.near == 240


def test_a_higher_target_answers_no_more() -> None:
    """Asking for more precision never answers more messages."""
    shares = [run(40, 6, 0.8, target=target)[1].answered for target in (0.6, 0.8, 0.9, 0.97)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]


def test_calibrating_again_gives_the_same() -> None:
    """Nothing is left to chance: the same FAQ gives the same policy, to the last bit."""
    assert run(12, 6, 0.8)[:2] == run(12, 6, 0.8)[:2]


def test_confidence_is_honest_on_the_samples() -> None:
    """Of messages with a confidence, about that share is right."""
    assert run(80, 10, 0.8)[1].calibration_error < 0.05


def test_one_entry_is_noted() -> None:
    """With a single entry, messages that are near but out of scope cannot be simulated, and the build says so."""
    _, found, _ = run(1, 6, 0.2)
    assert found.near == 0
    assert any("only one entry" in note for note in found.notes)


def test_one_phrasing_an_entry_is_noted() -> None:
    """With nothing to hold out, the build says what it did instead, and that it flatters."""
    _, found, _ = run(12, 1, 0.2)
    assert found.in_scope == 12
    assert any("phrasings can be held out" in note for note in found.notes)


def test_a_faq_with_phrasings_enough_needs_no_note() -> None:
    """Where everything could be measured, there is nothing to note."""
    assert run(12, 6, 0.2)[1].notes == ()


def test_a_precision_out_of_reach_is_noted() -> None:
    """Where no threshold reaches the target, only exact phrasings are answered, and the build says so."""
    policy, found, _ = run(12, 6, 100.0)
    assert policy.answer_at > 1
    assert found.answered == 0
    assert any("was not reached" in note for note in found.notes)


def columns(right: list[bool], evidence: list[float]) -> Samples:
    """Samples of equal weight, whose margins are their evidence."""
    n = len(right)
    flags = np.array(right)
    values = np.array(evidence)
    return Samples(values, values, values, values, flags, flags, np.ones(n, dtype=bool), np.full(n, 1 / n))


def test_evidence_that_misleads_get_no_weight() -> None:
    """Where wrong messages have more evidence than right ones, confidence is the share that is right."""
    confidence = fit_policy(columns([True, False, False, False], [0.1, 0.7, 0.8, 0.9]), 0.9).confidence
    assert (confidence.evidence, confidence.margin) == (0, 0)
    assert confidence.bias == pytest.approx(np.log(1 / 3))


def test_confidences_are_the_decisions_own() -> None:
    """A threshold is the confidence of a sample, which has to reach it when it is decided on: not one bit differs."""
    confidence = Confidence(bias=-7.3, evidence=9.1, margin=21.7)
    scores = np.random.default_rng(5).normal(size=2000).tolist()
    found, _ = confidences(confidence, columns([True] * 2000, scores))
    assert found.tolist() == [confidence.of(Candidate(0, 0.0, score, 0, score)) for score in scores]


def test_a_threshold_takes_all_of_equal_confidence() -> None:
    """A threshold cannot part equals: their precision counts together."""
    samples = columns([True, True, False, False], [0.0] * 4)
    assert find_answer_at(np.array([0.9, 0.5, 0.5, 0.5]), samples.right, samples.weight, 0.9) == 0.9
    assert find_answer_at(np.array([0.5, 0.5, 0.5, 0.5]), samples.right, samples.weight, 0.9) > 1
    assert find_answer_at(np.array([0.9, 0.5, 0.5, 0.1]), samples.right, samples.weight, 0.66) == 0.5


def test_an_answer_is_more_likely_right_than_wrong() -> None:
    """Easy messages do not pay for answers that are probably wrong, however high precision stays."""
    samples = columns([True] * 9 + [False], [0.0] * 10)
    assert find_answer_at(np.array([0.99] * 9 + [0.01]), samples.right, samples.weight, 0.9) == 0.99


def test_calibration_error_by_hand() -> None:
    """Two bins of equal mass: one is right as often as it says, the other claims 0.8 and is right half the time."""
    confidence = np.array([0.5, 0.5, 0.8, 0.8])
    right = np.array([True, False, True, False])
    assert calibration_error(confidence, right, np.ones(4), bins=2) == pytest.approx(0.15)
    assert calibration_error(confidence, right, np.array([0.0, 0.0, 2.0, 2.0]), bins=1) == pytest.approx(0.3)


def test_the_shop_is_calibrated(shop: Faq, shop_index: FaqIndex, encoder: BiEncoder, few_out_of_scope: Path) -> None:
    """On the sample shop the policy is in order, keeps its precision, and answers much of what it is asked."""
    items = items_of(shop.entries)
    held_out = hold_out(shop_index.vectors, shop_index.scorer.owners, items, entries=len(shop.entries), neighbours=100)
    far = read_out_of_scope(few_out_of_scope)
    weights = shop_index.manifest.weights
    assert choose_weights(held_out) == weights
    messages = held_out.messages(weights, far, encoder.encode(far))
    results = [calibrate(messages, target_precision=0.9, out_of_scope_share=0.3) for _ in range(2)]
    assert results[0] == results[1]
    policy, found = results[0]
    assert 0 < policy.clarify_at < policy.answer_at < 1
    assert found.precision is not None
    assert found.precision >= 0.9 - ROUNDING
    assert found.answered > 0.3
    assert found.calibration_error < 0.1
    assert found.notes == ()
