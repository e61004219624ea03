"""The cascade of one message: what it asks for, and how it ends."""

from collections.abc import Generator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from export.runtime.bi_encoder import BiEncoder
from intents.cascade import NeedRetrieved, Outcome, resolve
from intents.decide import Decision, Option, decide
from intents.index import FaqIndex
from intents.search import Retrieved, SearchMode
from tests.intents.small import SALE_BEGINS, SALE_ENDS, SMALL

IN_SEASON, OUT_OF_SEASON = SALE_BEGINS, SALE_ENDS + timedelta(days=1)
IDS = [entry.id for entry in SMALL.entries]


def finish(steps: Generator[NeedRetrieved, Retrieved, Outcome], *answers: Retrieved) -> Outcome:
    """Drive a cascade that has exactly as many needs as there are answers, and return its outcome."""
    send: Any = next
    given = iter(answers)
    try:
        need = send(steps)
        for found in given:
            assert isinstance(need, NeedRetrieved)
            need = steps.send(found)
    except StopIteration as stop:
        assert next(given, None) is None, "it ended without what it was offered"
        outcome: Outcome = stop.value
        return outcome
    raise AssertionError(f"it needs {need} on top")


def ask(text: str, index: FaqIndex, encoder: BiEncoder, day: date = IN_SEASON, mode: SearchMode = "annoy") -> Outcome:
    """Resolve a message for which the index has to be searched."""
    return finish(resolve(text, index, day), *index.search(mode).retrieve(encoder.encode([text])))


def without_search(text: str, index: FaqIndex, day: date = IN_SEASON) -> Outcome:
    """Resolve a message that needs nothing."""
    return finish(resolve(text, index, day))


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
    steps = resolve(" Parcel BACK? ", small_index, IN_SEASON)
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
    outcome = finish(resolve("\u200b\u200b", small_index, IN_SEASON), *found)
    assert outcome.decision.kind == "no_match"
