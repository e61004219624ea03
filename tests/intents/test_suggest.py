"""Guards `intents.suggest`: which entries are offered for what a visitor is still typing."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intents.entries import Entry, EntryKind, Faq
from intents.index import FaqIndex
from intents.normalise import normalise
from intents.suggest import MAX_SUGGESTIONS, MOST_LOOKED_AT, Suggester


def entries(*questions: str, kind: EntryKind = "faq", enabled: bool = True) -> list[Entry]:
    """Entries with these questions."""
    return [
        Entry(id=str(number), question=question, answer="a", kind=kind, enabled=enabled)
        for number, question in enumerate(questions)
    ]


def offered(text: str, *questions: str) -> list[str]:
    """The questions that are offered for a text."""
    return [questions[position] for position in Suggester(entries(*questions)).find(text)]


SHOP = ("Where is my order?", "How do I return an order?", "Order again", "What does shipping cost?", "E-mail address")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("wh", ["What does shipping cost?", "Where is my order?"]),
        ("WHERE  is", ["Where is my order?"]),
        ("order", ["Order again", "Where is my order?", "How do I return an order?"]),
        ("my or", ["Where is my order?"]),
        ("  «Order", ["Order again", "Where is my order?", "How do I return an order?"]),
        ("mail", ["E-mail address"]),
        ("rder", []),
        ("where are", []),
        ("", []),
        (" ?! ", []),
    ],
)
def test_beginnings_of_questions_then_of_words(text: str, found: list[str]) -> None:
    """Questions that begin with the text come first, then those in which a later word does; nothing finds nothing."""
    assert offered(text, *SHOP) == found


def test_a_space_ends_a_word() -> None:
    """A word that has been typed to its end is no beginning of a longer one, and may be the question's last."""
    questions = ("Change orders", "My order", "Order now")
    assert offered("order", *questions) == ["Order now", "My order", "Change orders"]
    assert offered("order ", *questions) == ["Order now", "My order"]


def test_an_entry_is_offered_once() -> None:
    """A question in which several words begin with the text is offered once, in its best place."""
    assert offered("pay", "Pay or pay later", "How to pay a payment") == ["Pay or pay later", "How to pay a payment"]


def test_no_more_than_a_few_are_offered() -> None:
    """However many match, a bounded number is found."""
    assert len(offered("how", *(f"How to do {number}" for number in range(99)))) == MAX_SUGGESTIONS


@pytest.mark.parametrize(("changes", "count"), [({}, 1), ({"enabled": False}, 0), ({"kind": "smalltalk"}, 0)])
def test_what_is_never_offered(changes: dict[str, object], count: int) -> None:
    """Entries that are disabled are not offered, and small talk is not either."""
    assert len(Suggester(entries("Hello", **changes)).find("hel")) == count  # type: ignore[arg-type]


def test_only_what_is_allowed() -> None:
    """Entries that may not be answered today make room for those that may."""
    questions = [f"How to do {number:02}" for number in range(20)]
    allowed = np.array([number >= 15 for number in range(20)])
    assert Suggester(entries(*questions)).find("how", allowed) == [15, 16, 17, 18, 19]


def test_looking_ends() -> None:
    """Where a great many in a row may not be answered, the rest is not looked at: a look-up takes a bounded time."""
    questions = [f"How {number:05}" for number in range(MOST_LOOKED_AT + 1)]
    allowed = np.array([number == MOST_LOOKED_AT for number in range(MOST_LOOKED_AT + 1)])
    suggester = Suggester(entries(*questions))
    assert suggester.find("how", allowed) == []
    assert suggester.find(f"how {MOST_LOOKED_AT:05}", allowed) == [MOST_LOOKED_AT]


WORDS = st.lists(st.text("aäb'-?ß", min_size=1, max_size=4), min_size=1, max_size=4).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=6), WORDS)
def test_it_finds_what_a_scan_finds(questions: list[str], text: str) -> None:
    """The sorted arrays give what looking through all questions gives."""
    prefix = normalise(text)
    found = Suggester(entries(*questions)).find(text)
    firsts = {n for n, question in enumerate(questions) if (normalise(question) + " ").startswith(prefix)}
    if any(character.isalnum() for character in prefix):
        assert firsts == set(found[: len(firsts)])
        assert all(prefix in normalise(questions[n]) for n in found)
        assert {n for n, question in enumerate(questions) if f" {prefix}" in normalise(question)} <= set(found)
    else:
        assert found == []


def test_the_index_knows_them(shop_index: FaqIndex, shop: Faq) -> None:
    """An index offers its own entries, those that are valid on that day."""
    found = shop_index.suggest("where is my", date(2026, 11, 23))
    assert [entry.id for entry in found] == ["track-order"]
    every = {entry.id for entry in shop.entries}
    assert {entry.id for entry in shop_index.suggest("h", date(2026, 11, 23))} <= every
