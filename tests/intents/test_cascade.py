"""The cascade of one message: what it asks for, and how it ends."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.runtime.bi_encoder import BiEncoder
from intents.cascade import Given, Need, NeedRetrieved, NeedScores, Outcome, Unconfirmed, resolve
from intents.decide import Decision, Option, decide
from intents.index import FaqIndex
from intents.search import Floats, Retrieved, SearchMode
from tests.intents.small import CONFIRMER, SALE_BEGINS, SALE_ENDS, SMALL, confirming

IN_SEASON, OUT_OF_SEASON = SALE_BEGINS, SALE_ENDS + timedelta(days=1)
IDS = [entry.id for entry in SMALL.entries]


def finish(steps: Generator[Need, Given, Outcome], *answers: Given) -> Outcome:
    """Drive a cascade that has exactly as many needs as there are answers, and return its outcome."""
    given = iter(answers)
    try:
        need = next(steps)
        for answer in given:
            assert isinstance(need, NeedRetrieved if isinstance(answer, Retrieved) else NeedScores)
            need = steps.send(answer)
    except StopIteration as stop:
        assert next(given, None) is None, "it ended without what it was offered"
        outcome: Outcome = stop.value
        return outcome
    raise AssertionError(f"it needs {need} on top")


def ask(text: str, index: FaqIndex, encoder: BiEncoder, day: date = IN_SEASON, mode: SearchMode = "annoy") -> Outcome:
    """Resolve a message for which the index has to be searched."""
    return finish(resolve(text, index, day, confirm=False), *index.search(mode).retrieve(encoder.encode([text])))


def without_search(text: str, index: FaqIndex, day: date = IN_SEASON) -> Outcome:
    """Resolve a message that needs nothing."""
    return finish(resolve(text, index, day, confirm=False))


@pytest.mark.parametrize(
    ("text", "entry", "kind"),
    [
        ("When are you open?", "opening-hours", "answer"),
        ("  OPENING hours!!", "opening-hours", "answer"),
        ("hi there", "hello", "answer"),
        ("Speak to a human.", "human", "handoff"),
    ],
)
def test_a_phrasing_needs_no_search(small_index: FaqIndex, text: str, entry: str, kind: str) -> None:
    """A message that equals a phrasing gets its entry at once and for certain, without the model."""
    outcome = without_search(text, small_index)
    position = IDS.index(entry)
    assert outcome.decision == Decision(kind, position, 1.0, (Option(position, 1.0),))  # type: ignore[arg-type]
    assert outcome.candidates == ()
    assert outcome.confirmation == "not_needed"


def test_any_other_message_needs_a_search(small_index: FaqIndex) -> None:
    """What is asked for is what the text retrieves, as it was typed."""
    steps = resolve(" Parcel BACK? ", small_index, IN_SEASON, confirm=True)
    assert next(steps) == NeedRetrieved(" Parcel BACK? ")


@pytest.mark.parametrize("mode", ["annoy", "exact"])
@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("until when is the shop open today", "opening-hours"),
        ("how can i send the parcel back to you", "returns"),
        ("how much do you charge for delivery", "shipping-cost"),
        ("i would like to talk to a real person", "human"),
    ],
)
def test_the_nearest_entry_comes_first(
    small_index: FaqIndex, encoder: BiEncoder, text: str, entry: str, mode: SearchMode
) -> None:
    """The real model finds the entry that is meant; the decision is the policy's on these candidates."""
    outcome = ask(text, small_index, encoder, mode=mode)
    assert IDS[outcome.candidates[0].entry] == entry
    assert outcome.decision == decide(outcome.candidates, SMALL.entries, small_index.policy)
    assert outcome.confirmation == "disabled"


def test_nothing_is_known_of_a_far_message(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """What no entry is about gets no answer, and a low confidence."""
    outcome = ask("what is the boiling point of mercury", small_index, encoder)
    assert outcome.decision.entry is None
    assert outcome.decision.confidence < small_index.policy.answer_at


def test_outside_of_its_days_an_entry_is_not_there(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """A phrasing of an entry that is out of season is a message like any other, and cannot find that entry."""
    sale = IDS.index("summer-sale")
    assert without_search("July sale", small_index, IN_SEASON).decision.entry == sale
    outcome = ask("July sale", small_index, encoder, OUT_OF_SEASON)
    assert sale not in [candidate.entry for candidate in outcome.candidates]
    assert outcome.decision.entry != sale
    assert sale in [candidate.entry for candidate in ask("the july sale", small_index, encoder).candidates]


def test_a_disabled_entry_is_not_there(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """A phrasing of a disabled entry needs the model, which cannot find the entry either."""
    outcome = ask("fax line", small_index, encoder)
    assert IDS.index("fax") not in [candidate.entry for candidate in outcome.candidates]


def test_resolving_has_no_memory(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """The same message, day and index give the same outcome, whatever was asked in between."""
    first = ask("send it back", small_index, encoder)
    ask("july sale dates", small_index, encoder, OUT_OF_SEASON)
    assert ask("send it back", small_index, encoder) == first


def test_a_vector_of_nothing_is_no_match(small_index: FaqIndex) -> None:
    """A vector without a direction is similar to nothing: the message ends, unanswered."""
    found = small_index.search("exact").retrieve(np.zeros((1, 384), dtype=np.float32))
    outcome = finish(resolve("\u200b\u200b", small_index, IN_SEASON, confirm=False), *found)
    assert outcome.decision.kind == "no_match"


# A message that matches several entries, and what it retrieves: returns, and behind it shipping-cost.
UNSURE = "what do i pay for sending it back"


@pytest.fixture(scope="module")
def unsure(small_index: FaqIndex, encoder: BiEncoder) -> Retrieved:
    """What the unsure message retrieves."""
    return small_index.search("exact").retrieve(encoder.encode([UNSURE]))[0]


def logits(*values: float) -> Floats:
    """Logits as a cross-encoder gives them."""
    return np.array(values, dtype=np.float32)


def confirm(index: FaqIndex, found: Retrieved, given: Given, **fields: Any) -> Outcome:
    """Resolve the unsure message with these logits, or with the reason why there are none."""
    return finish(resolve(UNSURE, confirming(index, **fields), IN_SEASON, confirm=True), found, given)


def test_scores_are_asked_for_the_first_candidates(small_index: FaqIndex, unsure: Retrieved) -> None:
    """The cross-encoder is to read the message as typed with the best candidates, as many as were calibrated for."""
    steps = resolve(UNSURE, confirming(small_index), IN_SEASON, confirm=True)
    next(steps)
    need = steps.send(unsure)
    candidates = small_index.scorer.candidates(UNSURE, unsure)
    assert len(candidates) > CONFIRMER.candidates
    assert need == NeedScores(UNSURE, tuple(small_index.rendered(c) for c in candidates[: CONFIRMER.candidates]))


@pytest.mark.parametrize("confirm", [True, False])
def test_without_a_confirmer_nothing_is_confirmed(small_index: FaqIndex, unsure: Retrieved, *, confirm: bool) -> None:
    """An index that was built without a cross-encoder decides by the bi-encoder alone."""
    outcome = finish(resolve(UNSURE, small_index, IN_SEASON, confirm=confirm), unsure)
    assert (outcome.confirmation, outcome.scored) == ("disabled", 0)


def test_confirmation_can_be_left_out(small_index: FaqIndex, unsure: Retrieved) -> None:
    """Where it is not wanted, a confirmer changes nothing."""
    outcome = finish(resolve(UNSURE, confirming(small_index), IN_SEASON, confirm=False), unsure)
    assert outcome == finish(resolve(UNSURE, small_index, IN_SEASON, confirm=False), unsure)


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.0), (1.0, 1.0), (1.01, 1.01)])
def test_what_confirmation_cannot_change_is_not_confirmed(
    small_index: FaqIndex, unsure: Retrieved, start: float, end: float
) -> None:
    """Outside of the confirmer's band of confidence nothing is asked for."""
    index = confirming(small_index, confirm_from=start, confirm_to=end)
    outcome = finish(resolve(UNSURE, index, IN_SEASON, confirm=True), unsure)
    assert (outcome.confirmation, outcome.scored) == ("not_needed", 0)
    assert outcome.decision == outcome.unconfirmed == decide(outcome.candidates, SMALL.entries, index.policy)


def test_the_band_holds_its_ends(small_index: FaqIndex, unsure: Retrieved) -> None:
    """A confidence that equals an end of the band is within it."""
    confidence = small_index.policy.confidence.of(small_index.scorer.candidates(UNSURE, unsure)[0])
    for start, end in ((confidence, 1.0), (0.0, confidence)):
        assert confirm(small_index, unsure, "failed", confirm_from=start, confirm_to=end).confirmation == "failed"


def test_a_phrasing_needs_no_confirmation(small_index: FaqIndex) -> None:
    """A message that equals a phrasing is not read by the cross-encoder either."""
    outcome = finish(resolve("opening hours", confirming(small_index), IN_SEASON, confirm=True))
    assert (outcome.confirmation, outcome.scored) == ("not_needed", 0)
    assert outcome.unconfirmed == outcome.decision


def test_nothing_retrieved_needs_no_confirmation(small_index: FaqIndex, unsure: Retrieved) -> None:
    """Without a candidate there is nothing to read."""
    nothing = Retrieved(unsure.vector, np.array([], dtype=np.int64), logits())
    outcome = finish(resolve(UNSURE, confirming(small_index), IN_SEASON, confirm=True), nothing)
    assert (outcome.decision.kind, outcome.confirmation) == ("no_match", "not_needed")


@pytest.mark.parametrize("why", get_args(Unconfirmed))
def test_without_logits_the_bi_encoder_decides(small_index: FaqIndex, unsure: Retrieved, why: Unconfirmed) -> None:
    """Whatever kept the cross-encoder from reading, the message ends with what is known, and says why."""
    outcome = confirm(small_index, unsure, why)
    assert (outcome.confirmation, outcome.scored) == (why, 0)
    assert outcome.decision == outcome.unconfirmed == decide(outcome.candidates, SMALL.entries, small_index.policy)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_decide_nothing(small_index: FaqIndex, unsure: Retrieved, bad: float) -> None:
    """A model that gives nonsense has failed: the bi-encoder's decision stands."""
    outcome = confirm(small_index, unsure, logits(1.0, bad, 0.0))
    assert (outcome.confirmation, outcome.scored) == ("failed", 0)
    assert outcome.decision == outcome.unconfirmed


@pytest.mark.parametrize("given", [logits(), logits(*[0.0] * 5), logits(1.0).reshape(1, 1)])
def test_logits_of_other_candidates_are_a_mistake_of_the_caller(
    small_index: FaqIndex, unsure: Retrieved, given: Floats
) -> None:
    """None, more than were asked for, or in another shape: the caller is told."""
    with pytest.raises(ValueError, match="logits of the first 1 to 4 candidates were asked for"):
        confirm(small_index, unsure, given)


def test_answers_to_another_question_are_a_mistake_of_the_caller(small_index: FaqIndex, unsure: Retrieved) -> None:
    """Logits where the search is due, or a search where logits are."""
    steps = resolve(UNSURE, confirming(small_index), IN_SEASON, confirm=True)
    next(steps)
    with pytest.raises(TypeError, match="what the text retrieves was asked for"):
        steps.send("failed")
    steps = resolve(UNSURE, confirming(small_index), IN_SEASON, confirm=True)
    next(steps)
    steps.send(unsure)
    with pytest.raises(ValueError, match="were asked for"):
        steps.send(unsure)


def test_a_top_entry_that_stays_is_confirmed(small_index: FaqIndex, unsure: Retrieved) -> None:
    """High logits of the first candidate make it certain, and it is answered by the confirmer's own policy."""
    outcome = confirm(small_index, unsure, logits(8.0, -3.0, -3.0))
    first = small_index.scorer.candidates(UNSURE, unsure)[0].entry
    assert (outcome.confirmation, outcome.scored) == ("confirmed", 3)
    assert (outcome.decision.kind, outcome.decision.entry) == ("answer", first)
    assert outcome.decision == decide(outcome.candidates, SMALL.entries, CONFIRMER.policy)
    assert outcome.unconfirmed == decide(
        small_index.scorer.candidates(UNSURE, unsure), SMALL.entries, small_index.policy
    )


def test_another_entry_overrules_the_first(small_index: FaqIndex, unsure: Retrieved) -> None:
    """A candidate that the cross-encoder prefers comes first."""
    outcome = confirm(small_index, unsure, logits(-5.0, 8.0))
    second = small_index.scorer.candidates(UNSURE, unsure)[1].entry
    assert (outcome.confirmation, outcome.scored) == ("overruled", 2)
    assert outcome.decision.entry == outcome.candidates[0].entry == second


def test_an_entry_that_was_not_read_can_come_first(small_index: FaqIndex, unsure: Retrieved) -> None:
    """Where all that were read are bad, the next one counts with the logit that its evidence lets expect."""
    outcome = confirm(small_index, unsure, logits(-9.0))
    assert outcome.confirmation == "overruled" or outcome.decision.kind == "no_match"
    assert outcome.candidates[0].entry == small_index.scorer.candidates(UNSURE, unsure)[1].entry


@pytest.mark.parametrize("given", [logits(-9.0, -9.0, -9.0, -9.0), logits(-6.0, -9.0, -9.0, -9.0)])
def test_what_is_no_longer_answered_was_rejected(small_index: FaqIndex, unsure: Retrieved, given: Floats) -> None:
    """Where the bi-encoder would have offered something and nothing is left of it, confirmation rejected it."""
    policy = msgspec.structs.replace(small_index.policy, answer_at=0.0, clarify_at=0.0)
    index = replace(small_index, manifest=msgspec.structs.replace(small_index.manifest, policy=policy))
    outcome = confirm(index, unsure, given)
    assert outcome.unconfirmed.kind == "answer"
    assert (outcome.decision.kind, outcome.confirmation) == ("no_match", "rejected")


def test_a_weaker_decision_on_the_same_entry_was_rejected(small_index: FaqIndex, unsure: Retrieved) -> None:
    """An answer that becomes one of several options was rejected; one that another entry replaces was overruled."""
    policy = msgspec.structs.replace(small_index.policy, answer_at=0.0, clarify_at=0.0)
    index = replace(small_index, manifest=msgspec.structs.replace(small_index.manifest, policy=policy))
    # Joint evidence of 7: more likely right than not, and too little to answer.
    first, second = (5.0 - 10.0 * candidate.evidence for candidate in small_index.scorer.candidates(UNSURE, unsure)[:2])
    same = confirm(index, unsure, logits(first, -9.0, -9.0, -9.0))
    assert (same.decision.kind, same.confirmation) == ("clarify", "rejected")
    other = confirm(index, unsure, logits(-9.0, second, -9.0, -9.0))
    assert (other.decision.kind, other.confirmation) == ("clarify", "overruled")


@given(st.lists(st.floats(min_value=-(2.0**100), max_value=2.0**100, width=32), min_size=1, max_size=4))
def test_any_prefix_of_logits_gives_an_outcome(
    small_index: FaqIndex, unsure: Retrieved, values: Sequence[float]
) -> None:
    """One logit or all of them, and however extreme: the message ends in a decision on what was retrieved."""
    before = small_index.scorer.candidates(UNSURE, unsure)
    outcome = confirm(small_index, unsure, logits(*values))
    assert outcome.scored == len(values)
    assert outcome.confirmation in {"confirmed", "overruled", "rejected"}
    assert {(c.entry, c.item) for c in outcome.candidates} == {(c.entry, c.item) for c in before}
    assert outcome.decision == decide(outcome.candidates, SMALL.entries, CONFIRMER.policy)
    assert 0 <= outcome.decision.confidence <= 1
    assert outcome.unconfirmed == decide(before, SMALL.entries, small_index.policy)
    if outcome.confirmation == "overruled":
        assert outcome.candidates[0].entry != before[0].entry
