"""What a build finds out about a cross-encoder: how its logits count, and when they are worth asking for."""

from collections.abc import Sequence

import numpy as np
import pytest

from export.bundle import BundleManifest, ModelSource
from export.learnt import Learnt
from export.runtime.encoder import Floats
from intents.calibrate import NEAR, calibrate
from intents.calibrate_confirmer import NEVER, find_band, fit_confirmer
from intents.candidates import Weights
from intents.confirm import Confirmer, Pair, Score
from intents.decide import Policy, decide
from intents.entries import Entry
from intents.errors import FaqIndexError
from intents.holdout import Messages, hold_out
from intents.items import items_of
from intents.manifest import Confirmed
from intents.normalise import normalise
from intents.reading import MAX_OF_A_KIND, read_messages
from tests.intents.synthetic import Synthetic, synthetic

BUNDLE = BundleManifest(
    format=1,
    kind="cross-encoder",
    source=ModelSource(model="by hand", revision=None, weights={}),
    pooling=None,
    dimension=1,
    max_tokens=48,
    prefix="",
    opset=17,
    variants={},
    made_with={},
    recipe="",
    fingerprint="f" * 64,
)


def entries_of(one: Synthetic) -> list[Entry]:
    """The entries of a synthetic FAQ without answers: their texts begin with their number."""
    texts: dict[int, list[str]] = {}
    for item in one.items:
        texts.setdefault(item.entry, []).append(item.text)
    return [
        Entry(id=f"e{number}", question=question, answer=f"e{number}", phrasings=tuple(others))
        for number, (question, *others) in texts.items()
    ]


def is_right(pair: Pair) -> bool:
    """Whether a phrasing of the candidate's is the message's neighbour; near messages have no such candidate."""
    message, candidate = pair
    return message.split("x")[0] == candidate.split("x")[0]


def knowing(sharpness: float) -> Score:
    """A cross-encoder that knows, more or less."""

    def score(pairs: Sequence[Pair]) -> Floats:
        chance = np.random.default_rng(3)
        right = np.array([is_right(pair) for pair in pairs])
        return (sharpness * (2.0 * right - 1.0) + chance.normal(size=len(pairs)) - 1.0).astype(np.float32)

    return score


def constant(pairs: Sequence[Pair]) -> Floats:
    """A cross-encoder that says the same of everything."""
    return np.full(len(pairs), 0.25, dtype=np.float32)


def fit(
    one: Synthetic, score: Score, *, target: float = 0.9, candidates: int = 5
) -> tuple[Confirmer, Confirmed, Policy, Messages]:
    """Calibrate a synthetic FAQ with a cross-encoder, as a build does."""
    messages, entries = one.messages(), entries_of(one)
    policy, _ = calibrate(messages, target_precision=target, out_of_scope_share=0.3)
    read = read_messages(messages, entries, one.items, candidates, score, Learnt())
    confirmer, confirmed = fit_confirmer(
        read, BUNDLE, entries, policy, candidates=candidates, target_precision=target, out_of_scope_share=0.3
    )
    return confirmer, confirmed, policy, read.messages


@pytest.fixture(scope="module")
def noisy() -> Synthetic:
    """A FAQ whose entries the bi-encoder often mistakes."""
    return synthetic(40, 6, 1.0, answers=False)


def test_what_hardly_helps_is_never_asked(noisy: Synthetic) -> None:
    """A cross-encoder with a trace of knowledge is not worth the time that it takes, and the build says so."""
    confirmer, confirmed, _, _ = fit(noisy, knowing(0.07))
    assert confirmer.joint.logit > 0
    assert (confirmed.share_confirmed, confirmer.confirm_from) == (0, NEVER)
    assert any("by 0." in note and "no message is confirmed" in note for note in confirmed.notes)


def test_it_says_what_it_belongs_to(noisy: Synthetic) -> None:
    """The confirmer names its cross-encoder, the length of pairs, and how many candidates are read."""
    confirmer, confirmed, _, messages = fit(noisy, knowing(2.0), candidates=3)
    assert (confirmer.model, confirmer.fingerprint) == ("by hand", "f" * 64)
    assert (confirmer.pair_tokens, confirmer.candidates) == (48, 3)
    assert confirmed.messages == len(messages.all())


def test_a_knowing_cross_encoder_answers_more(noisy: Synthetic) -> None:
    """With logits that tell right from wrong more is answered at the same precision, and confidence is honest."""
    messages = noisy.messages()
    _, alone = calibrate(messages, target_precision=0.9, out_of_scope_share=0.3)
    confirmer, confirmed, _, _ = fit(noisy, knowing(2.0))
    assert confirmer.is_monotone()
    assert confirmer.joint.logit > 0
    assert confirmed.precision is not None
    assert confirmed.precision >= 0.9 - 1e-9
    assert confirmed.answered > alone.answered + 0.1
    assert confirmed.calibration_error < 0.05
    assert 0 < confirmed.share_confirmed <= 1
    assert 0 <= confirmer.confirm_from <= confirmer.confirm_to <= 1
    assert confirmed.notes == ()


@pytest.mark.parametrize("score", [constant, knowing(-2.0)])
def test_a_cross_encoder_that_does_not_know_is_never_asked(noisy: Synthetic, score: Score) -> None:
    """Logits that say nothing, or the opposite, get no weight; no message is confirmed, and the build says so."""
    confirmer, confirmed, policy, messages = fit(noisy, score)
    assert confirmer.joint.logit == 0
    assert not any(confirmer.may_change(policy.confidence.of(posed.candidates[0])) for posed in messages.all())
    assert confirmed.share_confirmed == 0
    assert any("no message is confirmed" in note for note in confirmed.notes)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(("entries", "phrasings"), [(1, 1), (1, 6), (3, 2), (12, 1), (12, 6)])
def test_any_faq_gives_a_confirmer_that_holds(entries: int, phrasings: int, sharpness: float) -> None:
    """With one entry or many, and a good or a poor cross-encoder: nothing is negative, and precision is kept."""
    for seed in range(2):
        one = synthetic(entries, phrasings, 0.8, answers=False, seed=seed)
        confirmer, confirmed, _, _ = fit(one, knowing(sharpness))
        assert confirmer.is_monotone()
        assert confirmed.precision is None or confirmed.precision >= 0.9 - 1e-9
        for share in (confirmed.answered, confirmed.clarified, confirmed.refused, confirmed.calibration_error):
            assert 0 <= share <= 1
        assert 0 <= confirmed.share_confirmed <= 1


@pytest.mark.parametrize("target", [0.8, 0.95])
def test_the_expected_figures_are_the_cascades(noisy: Synthetic, target: float) -> None:
    """Putting the same messages through band, joint scores and both policies gives what was promised."""
    entries, messages = entries_of(noisy), noisy.messages()
    policy, _ = calibrate(messages, target_precision=target, out_of_scope_share=0.3)
    read = read_messages(messages, entries, noisy.items, 5, knowing(1.5), Learnt())
    confirmer, confirmed = fit_confirmer(
        read, BUNDLE, entries, policy, candidates=5, target_precision=target, out_of_scope_share=0.3
    )
    near, far = 0.3 * NEAR / len(messages.near), 0.3 * (1 - NEAR) / len(messages.far)
    shares = {"in": 0.7 / len(messages.in_scope), "near": near, "far": far}
    kinds = ["in"] * len(messages.in_scope) + ["near"] * len(messages.near) + ["far"] * len(messages.far)
    right = answered = refused = read_share = 0.0
    for kind, posed, logits in zip(kinds, read.messages.all(), read.logits, strict=True):
        decision = decide(posed.candidates, entries, policy)
        if confirmer.may_change(policy.confidence.of(posed.candidates[0])):
            decision = decide(confirmer.joint.rank(posed.candidates, logits), entries, confirmer.policy)
            read_share += shares[kind]
        answered += shares[kind] * (decision.kind == "answer")
        right += shares[kind] * (decision.kind == "answer" and decision.entry == posed.expected)
        refused += shares[kind] / 0.3 * (kind != "in" and decision.kind == "no_match")
    assert confirmed.precision is not None
    assert confirmed.precision == pytest.approx(right / answered, abs=1e-6)
    assert confirmed.precision >= target - 1e-9
    assert confirmed.refused == pytest.approx(refused, abs=1e-6)
    assert confirmed.share_confirmed == pytest.approx(read_share, abs=1e-6)


def test_fitting_again_gives_the_same(noisy: Synthetic) -> None:
    """Nothing is left to chance, to the last bit."""
    assert fit(noisy, knowing(1.0))[:2] == fit(noisy, knowing(1.0))[:2]


def test_the_scale_of_logits_does_not_matter(noisy: Synthetic) -> None:
    """A cross-encoder whose logits are a thousand times larger is worth as much."""

    def loud(pairs: Sequence[Pair]) -> Floats:
        return 1000.0 * knowing(1.5)(pairs)

    (one, quiet, *_), (other, large, *_) = fit(noisy, knowing(1.5)), fit(noisy, loud)
    assert other.joint.logit == pytest.approx(one.joint.logit / 1000, rel=1e-2)
    assert large.answered == pytest.approx(quiet.answered, abs=0.01)


def test_no_message_is_shown_to_itself(noisy: Synthetic) -> None:
    """A held-out phrasing is in no text of its own entry, not even as its question."""
    asked: list[Pair] = []

    def watch(pairs: Sequence[Pair]) -> Floats:
        asked.extend(pairs)
        return knowing(1.0)(pairs)

    read = read_messages(noisy.messages(), entries_of(noisy), noisy.items, 5, watch, Learnt())
    assert read.pairs == len(asked) == len(set(asked))
    assert any(message.endswith("x0") for message, _ in asked), "a question is held out too"
    for message, text in asked:
        assert message not in text.split(" | ")
    own = [text for message, text in asked if message == "7x0" and text.startswith("7x")]
    assert own
    assert all(" | " not in text for text in own), "without its question, an entry shows its best phrasing alone"


def test_a_held_out_question_is_not_read_in_its_answer() -> None:
    """An entry whose question is held out is shown by its phrasings and its answer, without the question."""
    entries = [
        Entry(id=f"e{i}", question=f"question {i}", answer=f"answer {i}", phrasings=(f"one {i}", f"two {i}"))
        for i in range(20)
    ]
    items = items_of(entries)
    vectors = synthetic(20, 3, 0.5).vectors  # three phrasings and an answer each
    held_out = hold_out(vectors, np.array([item.entry for item in items]), items, entries=20, neighbours=80)
    asked: list[Pair] = []

    def watch(pairs: Sequence[Pair]) -> Floats:
        asked.extend(pairs)
        return np.zeros(len(pairs), dtype=np.float32)

    read_messages(held_out.messages(Weights(), [], vectors[:0]), entries, items, 5, watch, Learnt())
    own = {text for message, text in asked if message == "question 4" and text.endswith("answer 4")}
    assert own <= {"one 4 | answer 4", "two 4 | answer 4"}
    assert own
    assert {"question 5 | one 5 | answer 5", "question 5 | two 5 | answer 5"} & {text for _, text in asked}


def test_only_the_first_candidates_are_read(noisy: Synthetic) -> None:
    """Each message is read with as many candidates as were asked for, the best ones."""
    read = read_messages(noisy.messages(), entries_of(noisy), noisy.items, 2, knowing(1.0), Learnt())
    assert {len(logits) for logits in read.logits} == {2}


def test_the_work_is_bounded() -> None:
    """Of a large FAQ a sample is read: some phrasings, some without their entry, and some far messages."""
    one = synthetic(70, 10, 0.8, answers=False)
    messages = one.messages()
    read = read_messages(messages, entries_of(one), one.items, 3, knowing(1.0), Learnt())
    assert len(read.messages.in_scope) == len(read.messages.near) == MAX_OF_A_KIND < len(messages.in_scope)
    assert {p.text for p in read.messages.in_scope} <= {p.text for p in messages.in_scope}
    assert {p.text for p in read.messages.near} <= {p.text for p in messages.near}
    assert len(read.messages.far) == len(messages.far) < MAX_OF_A_KIND


def test_logits_that_are_no_numbers_are_refused(noisy: Synthetic) -> None:
    """A cross-encoder that gives nonsense is told before anything is built on it."""

    def broken(pairs: Sequence[Pair]) -> Floats:
        return np.append(constant(pairs)[1:], np.float32("nan"))

    with pytest.raises(FaqIndexError, match="logits that are no numbers"):
        fit(noisy, broken)


def test_a_cross_encoder_that_harms_is_noted() -> None:
    """Where more is answered rightly without it, the build says so."""
    found = [fit(synthetic(40, 6, 1.0, answers=False, seed=seed), knowing(0.1))[1] for seed in range(3)]
    assert any("not expected to help" in note for confirmed in found for note in confirmed.notes)


def test_the_band_by_hand() -> None:
    """The fewest messages that hold enough of the changes; both ends are within it."""
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    changed = np.array([True, False, True, True, False])
    even = np.full(5, 0.2)
    assert find_band(values, changed, even, kept=1.0) == (0.1, 0.4)
    assert find_band(values, changed, even, kept=0.6) == (0.3, 0.4)
    assert find_band(values, changed, np.array([0.9, 0.025, 0.025, 0.025, 0.025]), kept=0.5) == (0.1, 0.1)
    assert find_band(values, np.zeros(5, dtype=bool), even) == (NEVER, NEVER)


def test_the_band_does_not_part_equals() -> None:
    """Messages of one confidence are within it or beyond it together, and count together."""
    values = np.array([0.2, 0.2, 0.2, 0.7, 0.9])
    changed = np.array([True, False, False, True, False])
    assert find_band(values, changed, np.full(5, 0.2), kept=0.5) == (0.7, 0.7)


def test_what_the_cross_encoder_has_learnt_is_no_measure_of_it() -> None:
    """It is calibrated on the messages that it was not trained on, in scope and near."""
    one = synthetic(30, 10, 0.8, answers=False)
    messages = one.messages()
    known = [posed.text for posed in messages.in_scope[::2]]
    learnt = Learnt.of(normalise(text) for text in known)
    read = read_messages(messages, entries_of(one), one.items, 3, knowing(1.0), learnt)
    assert {p.text for p in read.messages.in_scope} == {p.text for p in messages.in_scope} - set(known)
    assert {p.text for p in read.messages.near} == {p.text for p in messages.near} - set(known)
    assert len(read.messages.far) == len(messages.far)
    assert read.notes == ()


def test_a_cross_encoder_that_has_learnt_everything_is_told_of() -> None:
    """There is nothing else to calibrate it on: it is, and the build says what that means."""
    one = synthetic(30, 10, 0.8, answers=False)
    messages = one.messages()
    learnt = Learnt.of(normalise(posed.text) for posed in messages.in_scope[7:])
    read = read_messages(messages, entries_of(one), one.items, 3, knowing(1.0), learnt)
    assert len(read.messages.in_scope) == len(messages.in_scope)
    (note,) = read.notes
    assert note.startswith("the cross-encoder was trained on all but 7 of the phrasings")
    confirmed = fit_confirmer(
        read,
        BUNDLE,
        entries_of(one),
        calibrate(messages, target_precision=0.9, out_of_scope_share=0.3)[0],
        candidates=3,
        target_precision=0.9,
        out_of_scope_share=0.3,
    )[1]
    assert note in confirmed.notes
