"""What the index holds of an entry."""

import pytest

from intents.entries import Entry
from intents.items import Item, answer_of, items_of, plain_text, rendered, ways_to_ask


def entry(**fields: object) -> Entry:
    """An entry with one phrasing."""
    return Entry(**{"id": "a", "question": "Open?", "answer": "Yes, **daily**.", "phrasings": ("hours",), **fields})  # type: ignore[arg-type]


def test_an_entry_has_its_phrasings_and_its_answer() -> None:
    """The question comes first, then every phrasing, then the question joined with the answer as it is read."""
    assert items_of([entry()]) == [
        Item(0, "Open?", "phrasing"),
        Item(0, "hours", "phrasing"),
        Item(0, "Open?\nYes, daily.", "answer"),
    ]


@pytest.mark.parametrize("kind", ["smalltalk", "handoff"])
def test_only_faq_answers_are_searched(kind: str) -> None:
    """The answers of small talk and hand-off are not searched: they speak of everything the bot can do."""
    assert [item.role for item in items_of([entry(kind=kind)])] == ["phrasing", "phrasing"]


def test_an_answer_that_is_only_the_id_is_not_searched() -> None:
    """Intent data sets have no answers, and their ids are no words to search by."""
    assert [item.role for item in items_of([entry(id="card_lost", answer="card_lost")])] == ["phrasing", "phrasing"]


def test_disabled_entries_have_no_items() -> None:
    """A disabled entry is left out, and the others keep their positions in the FAQ."""
    items = items_of([entry(enabled=False), entry(id="b")])
    assert {item.entry for item in items} == {1}


def test_equal_texts_are_one_item() -> None:
    """The same text twice in an entry would only crowd the search."""
    assert [item.text for item in items_of([entry(phrasings=("hours", "Open?", "hours"))])][:2] == ["Open?", "hours"]
    assert len(items_of([entry(phrasings=("hours", "Open?", "hours"))])) == 3


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("plain", "plain"),
        ("**bold** and *it* and `code`", "bold and it and code"),
        ("see [our page](https://x.example/help)", "see our page"),
        ("![a map](map.png) of us", "a map of us"),
        ("# Title\n\nfirst line\nsecond line", "Title first line second line"),
        ("one\\\ntwo", "one two"),
        ("1. first\n2. second\n\n- third", "first second third"),
        ("> quoted", "quoted"),
        ("```sh\nrun it\n```\n\n    indented", "run it indented"),
        ("a &amp; b \\* c", "a & b * c"),
        ("<https://x.example>", "https://x.example"),
        ("a <b>tag</b>", "a <b>tag</b>"),
        ("  \n\n ", ""),
    ],
)
def test_plain_text_is_what_a_reader_sees(markdown: str, expected: str) -> None:
    """Marks of Markdown go, words stay, on one line; HTML is text, as it is in the widget."""
    assert plain_text(markdown) == expected


def test_ways_to_ask_stand_as_their_items_do() -> None:
    """The question first, each text once, in the order of the items."""
    one = entry(phrasings=("hours", "Open?", "times", "hours"))
    assert ways_to_ask(one) == ("Open?", "hours", "times")
    assert list(ways_to_ask(one)) == [item.text for item in items_of([one]) if item.role == "phrasing"]


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, "Yes, daily."),
        ({"kind": "smalltalk"}, None),
        ({"kind": "handoff"}, None),
        ({"id": "card_lost", "answer": "card_lost"}, None),
    ],
)
def test_answers_with_words_to_go_by(fields: dict[str, object], answer: str | None) -> None:
    """An answer counts where it is searched, and only there."""
    assert answer_of(entry(**fields)) == answer


@pytest.mark.parametrize(
    ("phrasing", "without", "text"),
    [
        ("hours", None, "Open? | hours | Yes."),
        ("Open?", None, "Open? | Yes."),
        (None, None, "Open? | Yes."),
        ("hours", "Open?", "hours | Yes."),
        (None, "Open?", "Yes."),
        ("hours", "hours", "Open? | Yes."),
        ("hours", "something else", "Open? | hours | Yes."),
    ],
)
def test_an_entry_as_text_for_the_cross_encoder(phrasing: str | None, without: str | None, text: str) -> None:
    """Its question, its best phrasing where that is another, and its answer; a text to leave out is nowhere in it."""
    assert rendered(entry(), phrasing, "Yes.", without=without) == text


def test_an_entry_without_an_answer_as_text() -> None:
    """Where the answer says nothing of what is asked, the ways to ask are all there is."""
    assert rendered(entry(), "hours", None) == "Open? | hours"
