"""Which entries are taken for which others."""

from intents.confusions import confusions
from tests.intents.judging import judged

JUDGED = [
    judged("a", "answer", "a", text="right"),
    judged("a", "answer", "b", text="first", confidence=0.6),
    judged("a", "clarify", "b", text="second", confidence=0.9, offered=("b", "a")),
    judged("a", "answer", "b", text="second", confidence=0.8),
    judged("c", "no_match", "b", text="third", confidence=0.2),
    judged("c", "no_match", text="nothing found"),
    judged(None, "answer", "c", text="fourth", confidence=0.7),
    judged(None, "handoff", "d", text="passed on"),
    judged(None, "no_match", "b", text="silent"),
]


def test_pairs_come_by_how_often_they_are_confused() -> None:
    """The most frequent first, then the most confident; out-of-scope messages count where they were answered."""
    found = confusions(JUDGED)
    assert [(one.expected, one.found, one.count) for one in found] == [("a", "b", 3), (None, "c", 1), ("c", "b", 1)]
    assert [one.message.text for one in found[0].examples] == ["second", "first"], "a text is an example once"


def test_there_are_not_too_many() -> None:
    """Pairs and examples are limited."""
    (one,) = confusions(JUDGED, most=1, examples=1)
    assert (one.count, len(one.examples)) == (3, 1)
    assert confusions(JUDGED[:1]) == []
