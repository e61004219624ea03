"""The decision: pure, monotone, and within what it may offer."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intents.candidates import Candidate
from intents.decide import Confidence, Decision, Option, Policy, answered, decide
from intents.entries import Entry, EntryKind

KINDS: tuple[EntryKind, ...] = ("faq", "faq", "faq", "smalltalk", "handoff", "faq")
ENTRIES = [Entry(id=f"e{i}", question=f"q{i}", answer="a", kind=kind) for i, kind in enumerate(KINDS)]
SMALLTALK, HANDOFF = 3, 4

# Evidence of 0.5 is a confidence of one half; margins do not count.
BY_SCORE = Policy(confidence=Confidence(bias=-10, evidence=20, margin=0), answer_at=0.8, clarify_at=0.4)
ANSWERED, CLARIFIED, REFUSED = 0.9, 0.5, 0.1
STRENGTH = {"no_match": 0, "clarify": 1, "answer": 2, "handoff": 2}

weights = st.floats(min_value=0, max_value=100)
shares = st.floats(min_value=0, max_value=1)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies as calibration makes them: weights that are not negative, thresholds in order."""
    low, high = sorted((draw(shares), draw(st.floats(min_value=0, max_value=1.01))))
    bias = draw(st.floats(min_value=-100, max_value=100))
    confidence = Confidence(bias=bias, evidence=draw(weights), margin=draw(weights))
    return Policy(confidence=confidence, answer_at=high, clarify_at=low)


@st.composite
def rankings(draw: st.DrawFn) -> list[Candidate]:
    """Candidates of distinct entries, best first, with their margins."""
    entries = draw(st.lists(st.integers(0, len(ENTRIES) - 1), unique=True, min_size=1))
    scores = sorted(draw(st.lists(st.floats(-1, 1), min_size=len(entries), max_size=len(entries))), reverse=True)
    return ranking(*zip(entries, scores, strict=True))


def ranking(*pairs: tuple[int, float]) -> list[Candidate]:
    """Candidates with the margins that belong to their scores, and as much evidence."""
    top = pairs[0][1]
    second = pairs[1][1] if len(pairs) > 1 else top
    return [
        Candidate(entry, score, score - (top if i else second), entry, score) for i, (entry, score) in enumerate(pairs)
    ]


@given(policies(), rankings(), st.floats(min_value=0, max_value=1))
def test_raising_the_top_score_never_weakens_a_decision(policy: Policy, found: list[Candidate], by: float) -> None:
    """A better top score never lowers confidence, nor turns an answer into options or options into silence."""
    raised = ranking((found[0].entry, found[0].score + by), *((c.entry, c.score) for c in found[1:]))
    before, after = decide(found, ENTRIES, policy), decide(raised, ENTRIES, policy)
    assert after.confidence >= before.confidence - 1e-12
    assert STRENGTH[after.kind] >= STRENGTH[before.kind] or math.isclose(before.confidence, after.confidence)
    if STRENGTH[before.kind] == 2 and after.confidence >= before.confidence:
        assert after.entry == before.entry


@given(policies(), rankings())
def test_a_decision_keeps_its_shape(policy: Policy, found: list[Candidate]) -> None:
    """Only answers and hand-offs name an entry, the first; at most three options, and small talk is never offered."""
    decision = decide(found, ENTRIES, policy)
    assert 0 <= decision.confidence <= 1
    assert len(decision.options) <= 3
    if decision.kind in {"answer", "handoff"}:
        assert decision.entry == found[0].entry
        assert decision.kind == ("handoff" if decision.entry == HANDOFF else "answer")
        assert decision.confidence >= policy.answer_at
    else:
        assert decision.entry is None
        assert decision.confidence < policy.answer_at
    if decision.kind == "clarify":
        assert decision.options
        assert decision.confidence >= policy.clarify_at
        assert SMALLTALK not in [option.entry for option in decision.options]


@given(policies(), rankings())
def test_confidence_is_of_the_top_entry(policy: Policy, found: list[Candidate]) -> None:
    """Confidence is the logistic of the top candidate's evidence and margin; at most that where others are offered."""
    c = policy.confidence
    logit = c.bias + c.evidence * found[0].evidence + c.margin * found[0].margin
    expected = 1 / (1 + math.exp(-max(-700, min(700, logit))))
    decision = decide(found, ENTRIES, policy)
    if decision.kind == "clarify":  # of the first option, where small talk above it is passed over
        assert decision.confidence <= expected + 1e-9
    else:
        assert decision.confidence == pytest.approx(expected)


@pytest.mark.parametrize(
    ("entry", "score", "kind"),
    [
        (0, ANSWERED, "answer"),
        (HANDOFF, ANSWERED, "handoff"),
        (SMALLTALK, ANSWERED, "answer"),
        (0, CLARIFIED, "clarify"),
        (HANDOFF, CLARIFIED, "clarify"),
        (0, REFUSED, "no_match"),
    ],
)
def test_confidence_decides(entry: int, score: float, kind: str) -> None:
    """Above the first threshold the entry is given, above the second options are, below it nothing is."""
    assert decide(ranking((entry, score), (1, 0.0)), ENTRIES, BY_SCORE).kind == kind


def test_a_threshold_belongs_to_what_it_allows() -> None:
    """A confidence that equals a threshold has reached it."""
    for threshold, kind in ((0.5, "answer"), (0.6, "clarify")):
        policy = Policy(confidence=BY_SCORE.confidence, answer_at=threshold, clarify_at=0.5)
        assert decide(ranking((0, 0.5)), ENTRIES, policy).kind == kind


def test_no_candidates_are_no_match() -> None:
    """Where nothing was retrieved, nothing is known and nothing is offered."""
    assert decide([], ENTRIES, BY_SCORE) == Decision("no_match", None, 0.0, ())


def test_options_are_the_three_best() -> None:
    """Options stand best first, each with its own confidence."""
    decision = decide(ranking((2, 0.55), (0, 0.54), (1, 0.53), (5, 0.52)), ENTRIES, BY_SCORE)
    assert decision.kind == "clarify"
    assert [option.entry for option in decision.options] == [2, 0, 1]
    confidences = [option.confidence for option in decision.options]
    assert confidences == sorted(confidences, reverse=True)
    assert decision.confidence == confidences[0]


def test_small_talk_is_passed_over_among_the_options() -> None:
    """Small talk on top of an unsure message is not offered; the entries behind it are."""
    decision = decide(ranking((SMALLTALK, CLARIFIED + 0.01), (0, CLARIFIED), (1, 0.1)), ENTRIES, BY_SCORE)
    assert decision.kind == "clarify"
    assert [option.entry for option in decision.options] == [0, 1]
    assert decision.confidence == decision.options[0].confidence


def test_what_stands_behind_small_talk_has_to_be_likely_itself() -> None:
    """Options that are hardly meant are not offered because small talk on top of them was half meant."""
    decision = decide(ranking((SMALLTALK, CLARIFIED), (0, 0.1)), ENTRIES, BY_SCORE)
    assert decision.kind == "no_match"


def test_small_talk_alone_is_no_option() -> None:
    """Where only small talk could be offered, nothing is."""
    decision = decide(ranking((SMALLTALK, CLARIFIED)), ENTRIES, BY_SCORE)
    assert decision.kind == "no_match"
    assert [option.entry for option in decision.options] == [SMALLTALK]


def test_a_threshold_above_one_answers_nothing() -> None:
    """Where the target precision could not be reached, even the surest message is not answered."""
    policy = Policy(confidence=Confidence(bias=1000, evidence=0, margin=0), answer_at=1.01, clarify_at=0.5)
    assert decide(ranking((0, 1.0)), ENTRIES, policy).kind == "clarify"


@pytest.mark.parametrize(("bias", "expected"), [(1e6, 1.0), (-1e6, 0.0)])
def test_confidence_does_not_overflow(bias: float, expected: float) -> None:
    """However extreme the evidence, confidence stays a probability."""
    assert Confidence(bias=bias, evidence=1, margin=1).of(Candidate(0, 0.0, 1.0, 0, 1.0)) == pytest.approx(expected)


@pytest.mark.parametrize(("entry", "kind"), [(0, "answer"), (SMALLTALK, "answer"), (HANDOFF, "handoff")])
def test_an_entry_decided_otherwise_is_answered_alike(entry: int, kind: str) -> None:
    """What is known without a search becomes the same decision as what was found."""
    top = Option(entry, 1.0)
    assert answered(top, ENTRIES, (top,)) == Decision(kind, entry, 1.0, (top,))  # type: ignore[arg-type]
