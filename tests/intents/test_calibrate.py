"""The confidence map and the thresholds that a build computes."""

from pathlib import Path

import numpy as np
import pytest

from export.runtime.bi_encoder import BiEncoder
from intents.calibrate import Heldout, Samples, _answer_at, _fit, calibrate, calibration_error, choose_weight, hold_out
from intents.candidates import unit
from intents.decide import Policy, decide
from intents.entries import Entry, Faq
from intents.index import Calibration, FaqIndex
from intents.items import Item, items_of
from intents.labelled import read_out_of_scope
from intents.search import Floats, Positions

ROUNDING = 1e-9


def synthetic(
    entries: int, phrasings: int, noise: float, *, answers: bool = True, seed: int = 1
) -> tuple[Floats, Positions, list[Item], Floats]:
    """Vectors, owners and items of a FAQ whose phrasings lie around their entry's direction, and far messages."""
    chance = np.random.default_rng(seed)
    items, vectors = [], []
    for entry in range(entries):
        centre = chance.normal(size=16)
        roles = ["phrasing"] * phrasings + (["answer"] if answers else [])
        items += [Item(entry, f"{entry}-{i}", role) for i, role in enumerate(roles)]  # type: ignore[arg-type]
        vectors += [centre + noise * chance.normal(size=16) for _ in roles]
    owners = np.array([item.entry for item in items], dtype=np.int64)
    return unit(np.array(vectors)), owners, items, unit(chance.normal(size=(200, 16)))


def run(
    entries: int, phrasings: int, noise: float, *, answers: bool = True, target: float = 0.9, seed: int = 1
) -> tuple[Policy, Calibration, Heldout, float]:
    """Calibrate a synthetic FAQ as a build does."""
    vectors, owners, items, far = synthetic(entries, phrasings, noise, answers=answers, seed=seed)
    held_out = hold_out(vectors, owners, items, neighbours=min(100, len(items)))
    weight = choose_weight(held_out)
    policy, found = calibrate(held_out, far, weight, target_precision=target, out_of_scope_share=0.3)
    return policy, found, held_out, weight


@pytest.mark.parametrize("noise", [0.2, 0.8, 3.0, 100.0])
@pytest.mark.parametrize(("entries", "phrasings"), [(1, 1), (1, 6), (3, 2), (12, 1), (12, 6)])
@pytest.mark.parametrize("answers", [True, False])
def test_any_faq_gives_a_policy_that_holds(entries: int, phrasings: int, noise: float, *, answers: bool) -> None:
    """Clear or hopeless, with one entry or many: thresholds are in order, no weight is negative, precision is kept."""
    for seed in range(2):
        policy, found, _, _ = run(entries, phrasings, noise, answers=answers, seed=seed)
        assert 0 <= policy.clarify_at <= policy.answer_at <= 1.01
        assert policy.answer_at >= 0.5
        assert policy.confidence.score >= 0
        assert policy.confidence.margin >= 0
        assert np.isfinite(policy.confidence.bias)
        assert found.precision is None or found.precision >= 0.9 - ROUNDING
        assert found.precision is not None or found.answered == 0
        for share in (found.precision or 0.0, found.answered, found.clarified, found.refused, found.calibration_error):
            assert 0 <= share <= 1


@pytest.mark.parametrize("target", [0.7, 0.9, 0.97])
def test_the_target_precision_holds_when_the_samples_are_decided(target: float) -> None:
    """Deciding the samples by the policy, at the expected share of out-of-scope messages, gives what was promised."""
    policy, found, held_out, weight = run(40, 6, 0.8, target=target)
    entries = [Entry(id=f"e{i}", question="q", answer="a") for i in range(40)]
    _, _, _, far = synthetic(40, 6, 0.8)
    groups = (
        (0.7, [(r, int(e)) for r, e in zip(held_out.in_scope, held_out.expected, strict=True)]),
        (0.15, [(r, None) for r in held_out.near]),
        (0.15, [(r, None) for r in held_out.retriever.unknown(far)]),
    )
    limit = float(np.median([r.ranked(weight)[0].score for r in held_out.in_scope]))
    right = answered = 0.0
    for share, messages in groups:
        ranked = [(r.ranked(weight), expected) for r, expected in messages]
        kept = [(c, e) for c, e in ranked if share > 0.5 or messages is not groups[2][1] or c[0].score < limit]
        for candidates, expected in kept:
            decision = decide(candidates, entries, policy)
            answered += share / len(kept) * (decision.kind == "answer")
            right += share / len(kept) * (decision.kind == "answer" and decision.entry == expected)
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
    assert run(40, 6, 0.8)[1].calibration_error < 0.05


def test_one_entry_is_noted() -> None:
    """With a single entry, messages that are near but out of scope cannot be simulated, and the build says so."""
    _, found, _, _ = run(1, 6, 0.2)
    assert found.near == 0
    assert any("only one entry" in note for note in found.notes)


def test_one_phrasing_an_entry_is_noted() -> None:
    """With nothing to hold out, the build says what it did instead, and that it flatters."""
    _, found, _, _ = run(12, 1, 0.2)
    assert found.in_scope == 12
    assert any("phrasings can be held out" in note for note in found.notes)


def test_a_faq_with_phrasings_enough_needs_no_note() -> None:
    """Where everything could be measured, there is nothing to note."""
    assert run(12, 6, 0.2)[1].notes == ()


def test_a_precision_out_of_reach_is_noted() -> None:
    """Where no threshold reaches the target, only exact phrasings are answered, and the build says so."""
    policy, found, _, _ = run(12, 6, 100.0)
    assert policy.answer_at > 1
    assert found.answered == 0
    assert any("was not reached" in note for note in found.notes)


def test_large_entries_do_not_drown_the_others() -> None:
    """At most twenty phrasings of an entry are held out."""
    vectors, owners, items, _ = synthetic(3, 50, 0.5)
    held_out = hold_out(vectors, owners, items, neighbours=100)
    assert np.bincount(held_out.expected).tolist() == [20, 20, 20]


def test_messages_that_the_faq_seems_to_answer_are_set_aside() -> None:
    """A shipped message that lies as near as the FAQ's own phrasings is no example of silence."""
    vectors, owners, items, far = synthetic(12, 6, 0.5)
    held_out = hold_out(vectors, owners, items, neighbours=72)
    messages = np.concatenate([far, vectors[:10]])
    _, found = calibrate(held_out, messages, 0.0, target_precision=0.9, out_of_scope_share=0.3)
    assert found.set_aside >= 10
    assert found.far == len(messages) - found.set_aside
    assert found.far > 100


def test_a_held_out_phrasing_does_not_find_itself() -> None:
    """A phrasing is scored against its entry's others, and a question's own answer goes with the question."""
    axes = np.eye(40, dtype=np.float32)
    items = [Item(e, f"{e}-{i}", "phrasing" if i < 3 else "answer") for e in range(10) for i in range(4)]
    owners = np.array([item.entry for item in items])
    vectors = axes.copy()
    vectors[3] = vectors[0]  # an answer that is all question
    held_out = hold_out(vectors, owners, items, neighbours=40)
    assert len(held_out.in_scope) == 30
    for retrieved in held_out.in_scope:
        assert retrieved.nearest.max() == 0


def test_a_left_out_entry_is_not_found() -> None:
    """A near out-of-scope message is a phrasing whose whole entry is gone."""
    vectors, owners, items, _ = synthetic(12, 6, 0.5)
    held_out = hold_out(vectors, owners, items, neighbours=84)
    assert len(held_out.near) == len(held_out.expected)
    for retrieved, expected in zip(held_out.near, held_out.expected, strict=True):
        assert expected not in retrieved.entries
        assert len(retrieved.entries) == 11


def test_the_weight_is_the_one_that_finds_most() -> None:
    """Where centroids help they get weight, and where they do not they get none."""
    vectors, owners, items, _ = synthetic(30, 6, 1.2)
    assert choose_weight(hold_out(vectors, owners, items, neighbours=100)) > 0
    clear, owners, items, _ = synthetic(30, 6, 0.05)
    assert choose_weight(hold_out(clear, owners, items, neighbours=100)) == 0


def columns(right: list[bool], score: list[float]) -> Samples:
    """Samples of equal weight, whose margins are their scores."""
    n = len(right)
    flags = np.array(right)
    scores = np.array(score)
    return Samples(scores, scores, scores, scores, flags, flags, np.ones(n, dtype=bool), np.full(n, 1 / n))


def test_scores_that_mislead_get_no_weight() -> None:
    """Where wrong messages score higher than right ones, confidence is the share that is right, whatever the score."""
    confidence = _fit(columns([True, False, False, False], [0.1, 0.7, 0.8, 0.9]))
    assert (confidence.score, confidence.margin) == (0, 0)
    assert confidence.bias == pytest.approx(np.log(1 / 3))


def test_a_threshold_takes_all_of_equal_confidence() -> None:
    """A threshold cannot part equals: their precision counts together."""
    samples = columns([True, True, False, False], [0.0] * 4)
    assert _answer_at(np.array([0.9, 0.5, 0.5, 0.5]), samples, 0.9) == 0.9
    assert _answer_at(np.array([0.5, 0.5, 0.5, 0.5]), samples, 0.9) > 1
    assert _answer_at(np.array([0.9, 0.5, 0.5, 0.1]), samples, 0.66) == 0.5


def test_an_answer_is_more_likely_right_than_wrong() -> None:
    """Easy messages do not pay for answers that are probably wrong, however high precision stays."""
    samples = columns([True] * 9 + [False], [0.0] * 10)
    assert _answer_at(np.array([0.99] * 9 + [0.01]), samples, 0.9) == 0.99


def test_calibration_error_by_hand() -> None:
    """Two bins of equal mass: one is right as often as it says, the other claims 0.8 and is right half the time."""
    confidence = np.array([0.5, 0.5, 0.8, 0.8])
    right = np.array([True, False, True, False])
    assert calibration_error(confidence, right, np.ones(4), bins=2) == pytest.approx(0.15)
    assert calibration_error(confidence, right, np.array([0.0, 0.0, 2.0, 2.0]), bins=1) == pytest.approx(0.3)


def test_the_shop_is_calibrated(shop: Faq, shop_index: FaqIndex, encoder: BiEncoder, few_out_of_scope: Path) -> None:
    """On the sample shop the policy is in order, keeps its precision, and answers much of what it is asked."""
    items = items_of(shop.entries)
    held_out = hold_out(shop_index.vectors, shop_index.scorer.owners, items, neighbours=100)
    far = encoder.encode(read_out_of_scope(few_out_of_scope))
    weight = shop_index.manifest.centroid_weight
    assert choose_weight(held_out) == weight
    results = [calibrate(held_out, far, weight, target_precision=0.9, out_of_scope_share=0.3) for _ in range(2)]
    assert results[0] == results[1]
    policy, found = results[0]
    assert 0 < policy.clarify_at < policy.answer_at < 1
    assert found.precision is not None
    assert found.precision >= 0.9 - ROUNDING
    assert found.answered > 0.3
    assert found.calibration_error < 0.1
    assert found.notes == ()
