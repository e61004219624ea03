"""Joint scores and evidence: what logits change, and that a better one never harms."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intents.candidates import Candidate
from intents.confirm import Confirmer, Joint
from intents.decide import Confidence, Policy, decide
from intents.entries import Entry
from tests.intents.small import CONFIRMER

ENTRIES = [Entry(id=f"e{i}", question=f"q{i}", answer="a", kind="smalltalk" if i == 3 else "faq") for i in range(10)]
PLAIN = Joint(evidence=1.0, logit=0.5, imputed=-1.0, imputed_by_evidence=2.0, order=1.0)
STRENGTH = {"no_match": 0, "clarify": 1, "answer": 2, "handoff": 2}

weights = st.floats(min_value=0, max_value=100)
numbers = st.floats(min_value=-50, max_value=50)
joints = st.builds(
    Joint, evidence=weights, logit=weights, imputed=numbers, imputed_by_evidence=weights, order=st.floats(0, 1)
)


@st.composite
def rankings(draw: st.DrawFn) -> list[Candidate]:
    """Candidates of distinct entries as the bi-encoder ranks them."""
    entries = draw(st.lists(st.integers(0, len(ENTRIES) - 1), unique=True, min_size=1))
    scores = sorted((draw(st.floats(-1, 1)) for _ in entries), reverse=True)
    lone = draw(st.floats(0, 1))
    return ranking(list(zip(entries, scores, strict=True)), lone)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies as calibration makes them."""
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1.01))))
    confidence = Confidence(bias=draw(numbers), evidence=draw(weights), margin=draw(weights))
    return Policy(confidence=confidence, answer_at=high, clarify_at=low)


def ranking(pairs: list[tuple[int, float]], lone: float = 0.1) -> list[Candidate]:
    """Candidates with the margins that belong to their scores, and as much evidence; a lone one's margin is given."""
    top = pairs[0][1]
    second = pairs[1][1] if len(pairs) > 1 else top - lone
    return [Candidate(e, score, score - (top if i else second), 10 * e, score) for i, (e, score) in enumerate(pairs)]


def test_joint_evidence_by_hand() -> None:
    """A weighted sum of the evidence and the logit beyond what no evidence lets expect."""
    assert PLAIN.of(0.5, 3.0) == pytest.approx(0.5 + 0.5 * (3.0 + 1.0))
    assert PLAIN.of(0.5, None) == pytest.approx(0.5 + 0.5 * (2.0 * 0.5))
    assert PLAIN.of(0.0, None) == 0


def test_a_ranking_by_hand() -> None:
    """Candidates change places by their joint scores, and margins are between these."""
    before = ranking([(4, 0.8), (7, 0.6), (2, 0.1)])
    after = PLAIN.rank(before, [-2.0, 1.0])
    assert [(c.entry, c.item) for c in after] == [(7, 70), (4, 40), (2, 20)]
    assert [c.score for c in after] == pytest.approx([0.6 + 1.0, 0.8 - 0.5, 0.1 + 0.1])
    assert [c.margin for c in after] == pytest.approx([1.3, -1.3, -1.4])
    assert [c.evidence for c in after] == [c.score for c in after]


def test_a_logit_may_count_for_less_in_the_order_than_in_the_score() -> None:
    """What is doubted stays first with a lower score, and none behind it has a higher one; evidence likewise."""
    before = ranking([(4, 0.8), (7, 0.6), (2, 0.1)])
    after = msgspec.structs.replace(PLAIN, order=0.1).rank(before, [-2.0, 1.0])
    assert [c.entry for c in after] == [4, 7, 2]
    assert [c.score for c in after] == pytest.approx([0.8 - 0.5, 0.8 - 0.5, 0.1 + 0.1])
    assert [c.margin for c in after] == pytest.approx([0.0, 0.0, -0.1])
    assert [c.evidence for c in after] == [c.score for c in after]


def test_equal_joint_scores_keep_their_order() -> None:
    """Where the cross-encoder sees no difference, the bi-encoder's order stands."""
    flat = Joint(evidence=0.0, logit=1.0, imputed=0.0, imputed_by_evidence=0.0, order=1.0)
    assert [c.entry for c in flat.rank(ranking([(5, 0.9), (1, 0.5), (8, 0.2)]), [2.0, 2.0, 2.0])] == [5, 1, 8]


def test_a_lone_candidate_keeps_a_margin() -> None:
    """What was not retrieved is at most as near as its margin says, and was not read."""
    (only,) = PLAIN.rank(ranking([(4, 0.8)], lone=0.3), [1.0])
    assert only.margin == pytest.approx(PLAIN.of(0.8, 1.0) - PLAIN.of(0.5, None))
    (bad,) = PLAIN.rank(ranking([(4, 0.8)], lone=0.3), [-9.0])
    assert bad.margin == 0


@given(joints, rankings(), st.lists(numbers, max_size=10))
def test_a_ranking_keeps_its_shape(joint: Joint, before: list[Candidate], logits: list[float]) -> None:
    """The same entries, best first, with the margins that belong to their joint scores."""
    after = joint.rank(before, logits[: len(before)])
    assert sorted((c.entry, c.item) for c in after) == sorted((c.entry, c.item) for c in before)
    scores = [c.score for c in after]
    assert scores == sorted(scores, reverse=True)
    assert after[0].margin >= 0
    assert all(c.margin == c.score - scores[0] for c in after[1:])
    assert len(after) < 2 or after[0].margin == scores[0] - scores[1]
    assert [c.evidence for c in after] == sorted((c.evidence for c in after), reverse=True)


@given(joints, rankings(), st.lists(numbers, min_size=10, max_size=10), st.data())
def test_a_higher_logit_never_harms_its_entry(
    joint: Joint, before: list[Candidate], logits: list[float], data: st.DataObject
) -> None:
    """When a candidate's logit rises, neither its place nor its joint score, margin or evidence falls."""
    count = data.draw(st.integers(1, len(before)))
    place = data.draw(st.integers(0, count - 1))
    raised = logits[:count]
    raised[place] += data.draw(st.floats(0, 50))
    one, other = joint.rank(before, logits[:count]), joint.rank(before, raised)
    entry = before[place].entry
    first, then = ([c.entry for c in ranked].index(entry) for ranked in (one, other))
    assert then <= first
    assert other[then].score >= one[first].score
    assert other[then].evidence >= one[first].evidence
    assert other[then].margin >= one[first].margin - 1e-6


@given(joints, policies(), rankings(), st.lists(numbers, min_size=10, max_size=10), st.data())
def test_a_higher_logit_of_the_first_never_weakens_a_decision(
    joint: Joint, policy: Policy, before: list[Candidate], logits: list[float], data: st.DataObject
) -> None:
    """What the cross-encoder finds better is answered no less."""
    count = data.draw(st.integers(1, len(before)))
    top = joint.rank(before, logits[:count])[0].entry
    place = [c.entry for c in before].index(top)
    if place >= count:
        return
    raised = logits[:count]
    raised[place] += data.draw(st.floats(0, 50))
    one, other = (decide(joint.rank(before, k), ENTRIES, policy) for k in (logits[:count], raised))
    assert other.confidence >= one.confidence - 1e-9
    if other.confidence > one.confidence:
        assert STRENGTH[other.kind] >= STRENGTH[one.kind]


@given(joints, rankings(), st.floats(0, 1), st.data())
def test_more_evidence_never_harms_its_entry(
    joint: Joint, before: list[Candidate], by: float, data: st.DataObject
) -> None:
    """Read or not, an entry for which the bi-encoder has more to say stands no lower, and has no less evidence."""
    place = data.draw(st.integers(0, len(before) - 1))
    logits = data.draw(st.lists(numbers, max_size=len(before)))
    raised = [*before]
    raised[place] = msgspec.structs.replace(before[place], evidence=before[place].evidence + by)
    one, other = joint.rank(before, logits), joint.rank(raised, logits)
    first, then = ([c.entry for c in ranked].index(before[place].entry) for ranked in (one, other))
    assert then <= first
    assert other[then].evidence >= one[first].evidence


@pytest.mark.parametrize(
    ("changes", "sound"),
    [
        ({}, True),
        ({"joint": msgspec.structs.replace(PLAIN, evidence=-0.1)}, False),
        ({"joint": msgspec.structs.replace(PLAIN, order=-0.1)}, False),
        ({"joint": msgspec.structs.replace(PLAIN, logit=-0.1)}, False),
        ({"joint": msgspec.structs.replace(PLAIN, imputed_by_evidence=-0.1)}, False),
        ({"joint": msgspec.structs.replace(PLAIN, imputed=-9.0)}, True),
        ({"policy": msgspec.structs.replace(CONFIRMER.policy, clarify_at=1.0)}, False),
        ({"candidates": 0}, False),
    ],
)
def test_what_could_harm_is_told(changes: dict[str, object], *, sound: bool) -> None:
    """A negative weight or thresholds out of order make a confirmer that more evidence could harm."""
    assert msgspec.structs.replace(CONFIRMER, **changes).is_monotone() is sound


def test_a_confirmer_survives_its_file() -> None:
    """What is read back is what was written."""
    assert msgspec.json.decode(msgspec.json.encode(CONFIRMER), type=Confirmer) == CONFIRMER
