"""How good the answers are: figures computed by hand, and one pass over real messages."""

from datetime import date

import msgspec
import pytest

from export.runtime.bi_encoder import BiEncoder
from intents.cascade import Outcome
from intents.decide import Decision, DecisionKind, Option
from intents.evaluate import Judged, Report, judge, summarise
from intents.index import FaqIndex
from intents.labelled import Labelled
from intents.search import Floats, Retrieved
from tests.intents.small import SALE_BEGINS, SMALL

IDS = [entry.id for entry in SMALL.entries]
DAY = date(2026, 7, 15)


def judged(
    expected: str | None, kind: DecisionKind, *ranking: str, options: tuple[str, ...] = (), agrees: bool | None = True
) -> Judged:
    """A message that ended in a decision on the first of these entries."""
    entry = IDS.index(ranking[0]) if kind in {"answer", "handoff"} else None
    offered = tuple(Option(IDS.index(option), 0.5) for option in options)
    outcome = Outcome(Decision(kind, entry, 0.5, offered), (), "disabled")
    return Judged(Labelled("text", expected), outcome, ranking, agrees)


JUDGED = (
    judged("returns", "answer", "returns", "hello", agrees=None),  # right
    judged("returns", "answer", "hello", "returns", agrees=False),  # wrong, second
    judged("human", "handoff", "human"),  # right
    judged("hello", "clarify", "returns", "human", "hello", options=("returns", "human", "hello")),  # a hit, third
    judged("hello", "clarify", "returns", "human", "fax", "hello", options=("returns", "human", "fax")),  # fourth
    judged("fax", "no_match", "returns", "human"),  # not among them
    judged("fax", "no_match"),  # nothing retrieved
    judged("fax", "no_match", "fax"),  # first, but too unsure
    judged(None, "answer", "returns"),  # wrong
    judged(None, "handoff", "human"),  # silent enough
    judged(None, "clarify", "returns", options=("returns",)),
    judged(None, "no_match", "returns"),
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
    results = judge(messages, small_index, small_index.search("annoy"), encoder, DAY, done.append)
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
    (before,) = judge(messages, small_index, small_index.search("exact"), encoder, date(2026, 1, 1))
    assert "summer-sale" not in before.ranking
    assert before.agrees
    (then,) = judge(messages, small_index, small_index.search("exact"), encoder, SALE_BEGINS)
    assert then.ranking[0] == "summer-sale"


def test_a_search_that_misses_disagrees(small_index: FaqIndex, encoder: BiEncoder) -> None:
    """A search whose top entry is not the exact scan's is counted against it."""

    class Worst:
        """Finds the items that are farthest away."""

        def retrieve(self, vectors: Floats) -> list[Retrieved]:
            """The exact scan of the opposite direction, with its true scores."""
            opposite = small_index.search("exact").retrieve(-vectors)
            return [Retrieved(-f.vector, f.positions[:3], -f.scores[:3]) for f in opposite]

    (one,) = judge([Labelled("can i send it back", "returns")], small_index, Worst(), encoder, DAY)
    assert one.agrees is False
    assert summarise([one], small_index).search_agreement == 0
