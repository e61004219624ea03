"""How good the answers are: figures computed by hand, and one pass over real messages."""

from collections.abc import Sequence
from datetime import date

import msgspec
import numpy as np
import pytest

from export.runtime.bi_encoder import BiEncoder
from intents.cascade import Confirmation, Outcome
from intents.decide import Decision, DecisionKind, Option
from intents.evaluate import Judged, Report, judge, look_up, summarise
from intents.index import FaqIndex
from intents.labelled import Labelled
from intents.search import Floats, Retrieved
from tests.intents.small import SALE_BEGINS, SMALL, confirming

IDS = [entry.id for entry in SMALL.entries]
DAY = date(2026, 7, 15)


def judged(
    expected: str | None,
    kind: DecisionKind,
    *ranking: str,
    options: tuple[str, ...] = (),
    agrees: bool | None = True,
    confirmation: Confirmation = "not_needed",
) -> Judged:
    """A message that ended in a decision on the first of these entries."""
    entry = IDS.index(ranking[0]) if kind in {"answer", "handoff"} else None
    offered = tuple(Option(IDS.index(option), 0.5) for option in options)
    decision = Decision(kind, entry, 0.5, offered)
    outcome = Outcome(decision, (), confirmation, 5 if confirmation in {"confirmed", "rejected"} else 0, decision)
    return Judged(Labelled("text", expected), outcome, ranking, agrees)


JUDGED = (
    judged("returns", "answer", "returns", "hello", agrees=None),  # right
    judged("returns", "answer", "hello", "returns", agrees=False),  # wrong, second
    judged("human", "handoff", "human"),  # right
    judged("hello", "clarify", "returns", "human", "hello", options=("returns", "human", "hello")),  # a hit, third
    judged("hello", "clarify", "returns", "human", "fax", "hello", options=("returns", "human", "fax")),  # fourth
    judged("fax", "no_match", "returns", "human"),  # not among them
    judged("fax", "no_match"),  # nothing retrieved
    judged("fax", "no_match", "fax", confirmation="rejected"),  # first, but too unsure
    judged(None, "answer", "returns", confirmation="confirmed"),  # wrong
    judged(None, "handoff", "human"),  # silent enough
    judged(None, "clarify", "returns", options=("returns",)),
    judged(None, "no_match", "returns", confirmation="rejected"),
)


def test_figures_by_hand(small_index: FaqIndex) -> None:
    """Every figure is the share that its definition says, computed here by hand."""
    report = summarise(JUDGED, small_index)
    assert (report.messages, report.in_scope, report.out_of_scope) == (12, 8, 4)
    assert report.accuracy_at_1 == pytest.approx(3 / 8)
    assert report.accuracy_at_3 == pytest.approx(5 / 8)
    assert report.mrr == pytest.approx((1 + 1 / 2 + 1 + 1 / 3 + 1 / 4 + 0 + 0 + 1) / 8)
    assert report.answered == pytest.approx(3 / 8)
    assert report.precision == pytest.approx(2 / 4)
    assert report.clarified == pytest.approx(2 / 8)
    assert report.clarify_hit == pytest.approx(1 / 2)
    assert report.out_of_scope_recall == pytest.approx(2 / 4)
    assert report.search_agreement == pytest.approx(10 / 11)
    assert report.share_confirmed == pytest.approx(3 / 12)
    assert report.confirmations == {"not_needed": 9, "rejected": 2, "confirmed": 1}


def test_what_was_not_asked_has_no_figure(small_index: FaqIndex) -> None:
    """A share of nothing is None, and not a zero that looks like a failure."""
    only_out = summarise([judged(None, "no_match", agrees=None)], small_index)
    assert (only_out.accuracy_at_1, only_out.mrr, only_out.answered, only_out.precision) == (None,) * 4
    assert (only_out.clarify_hit, only_out.search_agreement) == (None, None)
    assert only_out.out_of_scope_recall == 1
    only_in = summarise([judged("hello", "no_match")], small_index)
    assert (only_in.out_of_scope_recall, only_in.precision, only_in.accuracy_at_1) == (None, None, 0)


def test_the_report_has_the_names_others_rely_on(small_index: FaqIndex) -> None:
    """As JSON, the accuracies are `accuracy@1` and `accuracy@3`, and every figure is there."""
    data = msgspec.json.encode(summarise(JUDGED, small_index))
    decoded = msgspec.json.decode(data)
    assert list(decoded) == [
        "messages",
        "in_scope",
        "out_of_scope",
        "accuracy@1",
        "accuracy@3",
        "mrr",
        "answered",
        "precision",
        "clarified",
        "clarify_hit",
        "out_of_scope_recall",
        "search_agreement",
        "share_confirmed",
        "confirmations",
    ]
    assert msgspec.json.decode(data, type=Report) == summarise(JUDGED, small_index)


def test_messages_are_judged_by_the_cascade(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """Real messages go the way that visitors' messages go; exact phrasings are found without a search to compare."""
    messages = [
        Labelled("opening hours!", "opening-hours"),
        Labelled("please send the thing back for me", "returns"),
        Labelled("summer sale this year", "summer-sale"),
        Labelled("why is the sky blue", None),
    ]
    done: list[int] = []
    results = judge(look_up(messages, small_index, small_index.search("annoy"), encoder, done.append), small_index, DAY)
    assert [one.message for one in results] == messages
    assert results[0].ranking == ("opening-hours",)
    assert results[0].agrees is None
    assert results[0].outcome.confirmation == "not_needed"
    assert [one.ranking[0] for one in results[1:3]] == ["returns", "summer-sale"]
    assert all(one.agrees for one in results[1:])
    assert results[3].outcome.decision.entry is None
    assert sum(done) == len(messages)


def test_judging_honours_the_day(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """What is not valid on the day of the evaluation is in no ranking."""
    messages = [Labelled("summer sale this year", "summer-sale")]
    looked = look_up(messages, small_index, small_index.search("exact"), encoder)
    (before,) = judge(looked, small_index, date(2026, 1, 1))
    assert "summer-sale" not in before.ranking
    assert before.agrees
    (then,) = judge(looked, small_index, SALE_BEGINS)
    assert then.ranking[0] == "summer-sale"


def test_a_search_that_misses_disagrees(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """A search whose top entry is not the exact scan's is counted against it."""

    class Worst:
        """Finds the items that are farthest away."""

        def retrieve(self, vectors: Floats) -> list[Retrieved]:
            """The exact scan of the opposite direction, with its true scores."""
            opposite = small_index.search("exact").retrieve(-vectors)
            return [Retrieved(-f.vector, f.positions[:3], -f.scores[:3]) for f in opposite]

    looked = look_up([Labelled("can i send it back", "returns")], small_index, Worst(), encoder)
    (one,) = judge(looked, small_index, DAY)
    assert one.agrees is False
    assert summarise([one], small_index).search_agreement == 0


def test_a_cross_encoder_is_asked_once_for_all(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """Every message goes the cascade's way, with logits of its own; what was a phrasing needs none."""
    asked: list[tuple[str, str]] = []

    def prefer_shipping(pairs: Sequence[tuple[str, str]]) -> Floats:
        asked.extend(pairs)
        return np.array([8.0 if "hipping" in text else -8.0 for _, text in pairs], dtype=np.float32)

    index = confirming(small_index)
    texts = ["opening hours!", "what do i pay for sending it back", "what is the price of postage"]
    looked = look_up([Labelled(text, "returns") for text in texts], index, index.search("exact"), encoder)
    alone, cascade = judge(looked, index, DAY), judge(looked, index, DAY, prefer_shipping)
    assert [one.outcome.confirmation for one in alone] == ["not_needed", "disabled", "disabled"]
    assert [one.outcome.confirmation for one in cascade] == ["not_needed", "overruled", "confirmed"]
    assert [message for message, _ in asked] == [texts[1]] * 4 + [texts[2]] * 4
    assert [one.ranking[0] for one in cascade] == ["opening-hours", "shipping-cost", "shipping-cost"]
    assert [one.outcome.scored for one in cascade] == [0, 4, 4]
    assert [one.outcome.unconfirmed for one in cascade] == [one.outcome.decision for one in alone]
    assert [one.agrees for one in cascade] == [one.agrees for one in alone], "the search is judged before confirmation"
    report = summarise(cascade, index)
    assert report.share_confirmed == pytest.approx(2 / 3)
    assert report.confirmations == {"not_needed": 1, "overruled": 1, "confirmed": 1}


def test_a_cross_encoder_that_nobody_needs_is_not_asked(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """Where confirmation can change nothing, there is nothing to read."""

    def never(pairs: Sequence[tuple[str, str]]) -> Floats:
        raise AssertionError(f"{pairs} were to be read")

    index = confirming(small_index, confirm_from=1.01, confirm_to=1.01)
    looked = look_up([Labelled("can i send it back", "returns")], index, index.search("exact"), encoder)
    (one,) = judge(looked, index, DAY, never)
    assert one.outcome.confirmation == "not_needed"
