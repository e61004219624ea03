"""How labelled messages end: as visitors' messages end, and named so that indexes can be compared."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pytest

from export.runtime.bi_encoder import BiEncoder
from intents.evaluate import Judged, Looked, by_logits, judge, look_up, needed
from intents.index import FaqIndex
from intents.labelled import Labelled
from intents.search import Floats, Retrieved, Search
from tests.intents.judging import judged
from tests.intents.small import SALE_BEGINS, confirming

DAY = date(2026, 7, 15)


def looked_up(
    index: FaqIndex, encoder: BiEncoder, messages: Sequence[Labelled], today: date = DAY, search: Search | None = None
) -> list[Looked]:
    """Messages with what they retrieve."""
    vectors = encoder.encode([message.text for message in messages])
    return look_up(messages, vectors, index, search or index.search("exact"), today)


def test_messages_are_judged_by_the_cascade(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """Real messages go the way that visitors' messages go; exact phrasings are found without a search to compare."""
    messages = [
        Labelled("opening hours!", "opening-hours"),
        Labelled("please send the thing back for me", "returns"),
        Labelled("summer sale this year", "summer-sale"),
        Labelled("why is the sky blue", None),
    ]
    looked = looked_up(small_index, encoder, messages, search=small_index.search("annoy"))
    results = judge(looked, small_index, DAY)
    assert [one.message for one in results] == messages
    assert (results[0].ranking, results[0].agrees) == (("opening-hours",), None)
    assert (results[0].confidence, results[0].confirmation) == (1.0, "not_needed")
    assert [one.ranking[0] for one in results[1:3]] == ["returns", "summer-sale"]
    assert all(one.agrees for one in results[1:])
    assert not results[3].is_answered


def test_judging_honours_the_day(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """What is not valid on the day of the evaluation is in no ranking."""
    messages = [Labelled("summer sale this year", "summer-sale")]
    for today, first in ((date(2026, 1, 1), False), (SALE_BEGINS, True)):
        (one,) = judge(looked_up(small_index, encoder, messages, today), small_index, today)
        assert (one.ranking[0] == "summer-sale", "summer-sale" in one.ranking) == (first, first)
        assert one.agrees


def test_a_search_that_misses_disagrees(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """A search whose top entry is not the exact scan's is counted against it."""

    class Worst:
        """Finds the items that are farthest away."""

        def retrieve(self, vectors: Floats) -> list[Retrieved]:
            """The exact scan of the opposite direction, with its true scores."""
            opposite = small_index.search("exact").retrieve(-vectors)
            return [Retrieved(-f.vector, f.positions[:3], -f.scores[:3]) for f in opposite]

    (one,) = looked_up(small_index, encoder, [Labelled("can i send it back", "returns")], search=Worst())
    assert one.agrees is False


@pytest.fixture
def messages() -> list[Labelled]:
    """One that equals a phrasing, and two that do not."""
    texts = ["opening hours!", "what do i pay for sending it back", "what is the price of postage"]
    return [Labelled(text, "returns") for text in texts]


def test_logits_change_what_they_were_needed_for(
    small_index: FaqIndex, encoder: BiEncoder, messages: list[Labelled]
) -> None:
    """What was a phrasing needs no logits; every other message is ranked by its own."""
    index = confirming(small_index)
    looked = looked_up(index, encoder, messages)
    needs = needed(looked, index, DAY)
    assert [(place, need.message, len(need.candidates)) for place, need in needs.items()] == [
        (1, messages[1].text, 4),
        (2, messages[2].text, 4),
    ]
    logits = {
        place: np.array([8.0 if "hipping" in text else -8.0 for text in need.candidates], dtype=np.float32)
        for place, need in needs.items()
    }
    alone, cascade = judge(looked, index, DAY), judge(looked, index, DAY, logits)
    assert [one.confirmation for one in alone] == ["not_needed", "disabled", "disabled"]
    assert [one.confirmation for one in cascade] == ["not_needed", "overruled", "confirmed"]
    assert [one.ranking[0] for one in cascade] == ["opening-hours", "shipping-cost", "shipping-cost"]
    assert [one.read for one in cascade] == [0, 4, 4]
    assert [one.agrees for one in cascade] == [one.agrees for one in alone], "the search is judged before confirmation"


def test_where_confirmation_changes_nothing_nothing_is_needed(
    small_index: FaqIndex, encoder: BiEncoder, messages: list[Labelled]
) -> None:
    """A message outside of the confirmer's band is judged without logits."""
    index = confirming(small_index, confirm_from=1.01, confirm_to=1.01)
    looked = looked_up(index, encoder, messages)
    assert needed(looked, index, DAY) == {}
    assert {one.confirmation for one in judge(looked, index, DAY, {})} == {"not_needed"}


def test_the_confirmer_alone_ranks_what_it_read() -> None:
    """Its logits alone order the candidates, the others are out, and nothing is decided."""
    alone = judged("b", "answer", "a", "b", "c", "d", confidence=0.9)
    one = by_logits(alone, np.array([-1.0, 2.0, np.nan], dtype=np.float32))
    assert (one.ranking, one.decision, one.read) == (("b", "a", "c"), None, 3)
    assert one.confidence == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert one.is_right
    assert not one.is_answered
    exact = by_logits(judged("a", "answer", "a", confidence=1.0), None)
    assert (exact.ranking, exact.confidence, exact.decision) == (("a",), 1.0, None)


@pytest.mark.parametrize(
    ("one", "label"),
    [
        (judged("a", "answer", "b", "a"), "b"),
        (judged("a", "handoff", "a"), "a"),
        (judged("a", "no_match", "a"), "oos"),
        (judged("a", "clarify", "b", "a", offered=("b", "a")), "a"),
        (judged("a", "clarify", "b", offered=("b", "c")), "b"),
        (judged(None, "answer", "a"), "a"),
        (judged(None, "handoff", "a"), "oos"),
        (judged(None, "no_match"), "oos"),
        (judged(None, "clarify", "a", offered=("a",)), "a"),
    ],
)
def test_what_a_message_is_taken_for(one: Judged, label: str) -> None:
    """Options stand for the right entry where it is among them; a hand-off recognises what no entry answers."""
    assert one.label == label
