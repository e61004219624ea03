"""The sample shop: a FAQ worth trying, and held-out messages that are really held out."""

from collections import Counter
from pathlib import Path

import pytest

from intents import build
from intents.entries import Faq, Header, Texts
from intents.index import phrasings_of
from intents.labelled import Labelled, read_labelled, read_out_of_scope
from intents.normalise import normalise

MESSAGES = Path(build.__file__).parent / "samples" / "shop_messages.csv"


@pytest.fixture(scope="module")
def messages(shop: Faq) -> list[Labelled]:
    """The held-out messages; reading them fails where an expected id is not in the FAQ."""
    labelled, left_out = read_labelled(MESSAGES, {entry.id for entry in shop.entries if entry.enabled})
    assert left_out == []
    return labelled


def test_has_entries_enough(shop: Faq) -> None:
    """There are at least 60 entries, each with its question and five or more phrasings."""
    assert len(shop.entries) >= 60
    assert [entry.id for entry in shop.entries if len(entry.phrasings) < 5] == []


def test_has_every_kind_of_entry(shop: Faq) -> None:
    """Small talk and hand-off are there to be tried, and the texts are the shop's own."""
    kinds = Counter(entry.kind for entry in shop.entries)
    assert set(kinds) == {"faq", "smalltalk", "handoff"}
    assert kinds["faq"] > kinds["smalltalk"]
    assert shop.header.name != Header().name
    assert shop.header.texts != Texts()


def test_phrasings_are_like_those_of_visitors(shop: Faq) -> None:
    """Phrasings are short and long, and many are in lower case without a question mark."""
    phrasings = [text for entry in shop.entries for text in entry.phrasings]
    assert sum(len(text.split()) <= 3 for text in phrasings) >= 50
    assert sum(len(text.split()) >= 20 for text in phrasings) >= 50
    assert sum(text == text.lower() and not text.endswith("?") for text in phrasings) >= 100


def test_has_messages_enough(messages: list[Labelled]) -> None:
    """There are at least 300 different messages, about a third of them out of scope."""
    assert len(messages) >= 300
    assert len({normalise(message.text) for message in messages}) == len(messages)
    assert 0.30 <= sum(message.expected is None for message in messages) / len(messages) <= 0.37


def test_messages_are_of_most_entries(shop: Faq, messages: list[Labelled]) -> None:
    """Most entries are asked for by some message."""
    asked = {message.expected for message in messages} - {None}
    assert len(asked) >= 0.8 * len(shop.entries)


def test_messages_are_held_out(shop: Faq, messages: list[Labelled]) -> None:
    """No message is a phrasing of the FAQ: those would be answered without any search."""
    phrasings = phrasings_of(shop)
    assert [message.text for message in messages if normalise(message.text) in phrasings] == []


def test_messages_are_not_calibrated_on(messages: list[Labelled]) -> None:
    """No message is in the set of out-of-scope messages that the thresholds are computed from."""
    known = set(map(normalise, read_out_of_scope(build.SHIPPED_OUT_OF_SCOPE)))
    assert [message.text for message in messages if normalise(message.text) in known] == []
