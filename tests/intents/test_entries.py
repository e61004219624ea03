"""The rules between entries, and how they are reported."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from intents.entries import Entry, Header, Located, assemble, texts_of
from intents.errors import FaqError, Problem

FILE = Path("shop.yaml")


def entry(entry_id: str = "a", **fields: Any) -> Entry:
    """An entry that keeps all the rules unless `fields` break one."""
    return Entry(**{"id": entry_id, "question": f"question of {entry_id}", "answer": "yes", **fields})


def located(one: Entry, line: int = 1, file: Path = FILE) -> Located:
    """An entry whose fields stand on the lines below `line`."""
    names = ["id", "answer", "url", "valid_to", *(path for path, _ in texts_of(one))]
    names += [f"follow_ups[{i}]" for i in range(len(one.follow_ups))]
    return Located(one, file, {"": line, **{name: line + i for i, name in enumerate(names)}})


def problems(*entries: Entry) -> Sequence[Problem]:
    """What is wrong with these entries; the first stands on line 100, the next on line 200, and so on."""
    with pytest.raises(FaqError) as caught:
        assemble(Header(), [located(one, 100 * (i + 1)) for i, one in enumerate(entries)])
    return caught.value.problems


def test_keeps_the_entries_in_their_order() -> None:
    """Entries that keep the rules become a FAQ, as they were and in their order."""
    entries = (entry("b", follow_ups=("a",)), entry("a", url="/help", valid_from=date(2026, 1, 1)))
    faq = assemble(Header(name="Shop"), [located(one) for one in entries])
    assert faq.entries == entries
    assert faq.header.name == "Shop"


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"id": ""}, "id", "is empty"),
        ({"question": ""}, "question", "is empty"),
        ({"answer": "\n "}, "answer", "is empty"),
        ({"phrasings": ("fine", "\t")}, "phrasings[1]", "is empty"),
        ({"id": "oos"}, "id", "means out of scope"),
        ({"id": "my order"}, "id", "white space"),
        ({"id": "my\u200border"}, "id", "control characters"),
        ({"id": "x" * 129}, "id", "longer than 128"),
        ({"url": "javascript:alert(1)"}, "url", "is not a link"),
        ({"url": "www.example.com"}, "url", "is not a link"),
        ({"valid_from": date(2026, 2, 1), "valid_to": date(2026, 1, 31)}, "valid_to", "before valid_from"),
        ({"follow_ups": ("nowhere",)}, "follow_ups[0]", "is no entry's id"),
        ({"follow_ups": ("a",)}, "follow_ups[0]", "the entry itself"),
    ],
)
def test_names_what_is_wrong_with_an_entry(fields: dict[str, Any], field: str, words: str) -> None:
    """Every rule within an entry is reported once, with file, line and field."""
    one = entry(**fields)
    (problem,) = problems(one)
    assert (problem.file, problem.field) == (FILE, field)
    assert problem.line == located(one, 100).lines[field]
    assert words in problem.message


@pytest.mark.parametrize(
    "url", ["https://x.example", "http://x.example", "mailto:a@x.example", "tel:+1", "/help", None]
)
def test_accepts_links(url: str | None) -> None:
    """Web addresses, mail, telephone and paths on the site are links; having none is fine."""
    assert assemble(Header(), [located(entry(url=url))]).entries[0].url == url


@pytest.mark.parametrize("length", [1, 128])
def test_accepts_ids_up_to_their_limit(length: int) -> None:
    """An id of 128 characters is still one."""
    assert assemble(Header(), [located(entry("x" * length))])


def test_an_entry_may_be_valid_for_one_day() -> None:
    """The first and the last day may be the same."""
    day = date(2026, 2, 1)
    assert assemble(Header(), [located(entry(valid_from=day, valid_to=day))])


def test_ids_are_unique() -> None:
    """A second entry of the same id is reported where it stands, and says where the first one is."""
    (problem,) = problems(entry("a", question="one"), entry("a", question="two"))
    assert (problem.line, problem.field) == (200, "id")
    assert "shop.yaml:100" in problem.message


@pytest.mark.parametrize("text", ["Where is my order?", "where is my ORDER", " where is  my order!! "])
def test_a_phrasing_leads_to_one_entry(text: str) -> None:
    """Two entries may not share a phrasing, however it is written; the report names the first entry and its place."""
    (problem,) = problems(entry("a", phrasings=("x", "where is my order")), entry("b", phrasings=(text,)))
    assert problem.field == "phrasings[0]"
    assert problem.line > 200
    assert "'a'" in problem.message
    assert "shop.yaml:106" in problem.message


def test_an_entry_may_repeat_itself() -> None:
    """The same phrasing twice within one entry leads to one entry, and is no fault."""
    assert assemble(Header(), [located(entry(question="Refund?", phrasings=("refund", "REFUND")))])


def test_reports_everything_at_once() -> None:
    """All problems of all entries come together, in the order of the file."""
    found = problems(
        entry("a", answer="", url="ftp://x", follow_ups=("b", "nowhere")),
        entry("b", question="question of a", phrasings=("",)),
        entry("b", question="another"),
    )
    assert [problem.field for problem in found] == ["answer", "url", "follow_ups[1]", "question", "phrasings[0]", "id"]
    assert list(found) == sorted(found)


def test_an_error_is_one_line_for_each_problem() -> None:
    """The error's text is what compilers write: file, line, field and message, one line each."""
    with pytest.raises(FaqError) as caught:
        assemble(Header(), [located(entry(answer="", url="x"), 7)])
    assert str(caught.value).splitlines() == [
        "shop.yaml:8: answer: is empty; write a text",
        "shop.yaml:9: url: 'x' is not a link; begin it with https://, http://, mailto:, tel: or /",
    ]


def test_a_problem_without_a_line_names_the_file_alone() -> None:
    """Where no line can be named, none is made up."""
    assert str(Problem(FILE, 0, "", "does not exist")) == "shop.yaml: does not exist"


def test_texts_begin_with_the_question() -> None:
    """Every way to ask an entry is listed with the path of its field, the question first."""
    one = entry(question="q", phrasings=("p", "r"))
    assert list(texts_of(one)) == [("question", "q"), ("phrasings[0]", "p"), ("phrasings[1]", "r")]


@pytest.mark.parametrize(
    ("first", "last", "valid"),
    [
        (None, None, True),
        (date(2026, 7, 1), None, True),
        (None, date(2026, 7, 1), True),
        (date(2026, 7, 1), date(2026, 7, 1), True),
        (date(2026, 7, 2), None, False),
        (None, date(2026, 6, 30), False),
    ],
)
def test_validity_includes_both_days(first: date | None, last: date | None, *, valid: bool) -> None:
    """An entry is valid on its first and its last day, and always where it has neither."""
    assert entry(valid_from=first, valid_to=last).is_valid_on(date(2026, 7, 1)) is valid
