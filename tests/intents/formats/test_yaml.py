"""The YAML format: what it reads, and how it says what it cannot."""

from datetime import date
from pathlib import Path

import pytest

from intents.entries import Entry
from intents.errors import FaqError
from intents.formats import load_faq

ENTRY = """\
  - id: hours
    question: When are you open?
    answer: From 9 to 18.
"""
FAQ = f"entries:\n{ENTRY}"


def write(folder: Path, text: str | bytes, name: str = "faq.yaml") -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> list[str]:
    """The lines of the error that reading `path` raises, with the paths of its files cut to their names."""
    with pytest.raises(FaqError) as caught:
        load_faq(path)
    return str(caught.value).replace(f"{path if path.is_dir() else path.parent}/", "").splitlines()


def only_entry(path: Path) -> Entry:
    """The one entry of a file."""
    (entry,) = load_faq(path).faq.entries
    return entry


def test_reads_every_field(tmp_path: Path) -> None:
    """A FAQ with every field that there is becomes entries and a header, field by field."""
    path = write(
        tmp_path,
        """\
name: Shop
language: de
texts: {no_match: nothing, clarify: this?, handoff: over}
entries:
  - id: a
    question: q
    answer: |-
      **bold**
      text
    phrasings: [p, "r"]
    url: /help
    tags: [t]
    follow_ups: [b]
    kind: handoff
    enabled: false
    valid_from: 2026-01-02
    valid_to: '2026-01-03'
  - {id: b, question: second, answer: x}
""",
    )
    faq = load_faq(path).faq
    assert (faq.header.name, faq.header.language) == ("Shop", "de")
    assert (faq.header.texts.no_match, faq.header.texts.clarify, faq.header.texts.handoff) == (
        "nothing",
        "this?",
        "over",
    )
    assert faq.entries[0] == Entry(
        id="a",
        question="q",
        answer="**bold**\ntext",
        phrasings=("p", "r"),
        url="/help",
        tags=("t",),
        follow_ups=("b",),
        kind="handoff",
        enabled=False,
        valid_from=date(2026, 1, 2),
        valid_to=date(2026, 1, 3),
    )
    assert faq.entries[1] == Entry(id="b", question="second", answer="x")


@pytest.mark.parametrize(
    "text", ["no", "yes", "on", "12:30", "2024", "1_000", "0x10", ".5", "2026-01-01", "1e3", "True"]
)
def test_a_text_stays_what_was_typed(tmp_path: Path, text: str) -> None:
    """YAML's own ideas of what is a number, a date or a truth value never change an operator's text."""
    entry = only_entry(
        write(tmp_path, f"entries:\n- id: {text}\n  question: {text}\n  answer: {text}\n  tags: [{text}]\n")
    )
    assert entry == Entry(id=text, question=text, answer=text, tags=(text,))


def test_reads_a_byte_order_mark(tmp_path: Path) -> None:
    """Files as some editors on Windows save them are read, line ends and all."""
    entry = only_entry(write(tmp_path, b"\xef\xbb\xbf" + FAQ.replace("\n", "\r\n").encode()))
    assert entry.answer == "From 9 to 18."


def test_reads_other_scripts(tmp_path: Path) -> None:
    """Any script, and emoji, come through as they are."""
    assert only_entry(write(tmp_path, FAQ + "    phrasings: [営業時間は, geöffnet?, 🕘]\n")).phrasings == (
        "営業時間は",
        "geöffnet?",
        "🕘",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "faq.yaml: is empty; a FAQ has a list of entries"),
        ("# nothing yet\n", "faq.yaml: is empty; a FAQ has a list of entries"),
        ("- a\n", "faq.yaml:1: is not a FAQ; a mapping with the key `entries` is expected"),
        ("just text", "faq.yaml:1: is not a FAQ; a mapping with the key `entries` is expected"),
        ("name: x\n", "faq.yaml:1: entries: is missing; a FAQ has a list of entries"),
        ("name: x\nentries: []\n", "faq.yaml: entries: is empty; a FAQ has at least one entry"),
        ("\nentries: {a: b}\n", "faq.yaml:2: entries: is not a list; write each entry"),
        ("entries:\n- just text\n", "faq.yaml:2: entries: has an item that is not an entry"),
        ("entries:\n- []\n", "faq.yaml:2: entries: has an item that is not an entry"),
        (FAQ + "---\n" + FAQ, "faq.yaml:5: is not valid YAML: but found another document"),
        ("entries:\n\t- a\n", "faq.yaml:2: is not valid YAML: found character that cannot start any token"),
        ("entries:\n- id: *x\n", "faq.yaml:2: is not valid YAML: found undefined alias"),
        ("name: Café\nentries: \a", "faq.yaml:2: is not valid YAML: "),
        (b"name: Caf\xe9\n", "faq.yaml: is not UTF-8 (invalid continuation byte at byte 9)"),
        (b"\xff\xfen\x00", "faq.yaml: is not UTF-8 (invalid start byte at byte 0)"),
    ],
)
def test_says_why_a_file_is_no_faq(tmp_path: Path, text: str | bytes, expected: str) -> None:
    """What is not a FAQ at all is refused with one line that names the file and, where there is one, the line."""
    (line,) = refusal(write(tmp_path, text))
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("    qestion: x\n", "faq.yaml:5: qestion: is not a known field; known are id, question, answer, phrasings,"),
        ("    ? [a]\n    : b\n", "faq.yaml:6: ?: is not a known field"),
        ("    phrasings: one\n", "faq.yaml:5: phrasings: expected a list, got text"),
        ("    phrasings:\n    - a\n    - {b: c}\n", "faq.yaml:7: phrasings[1]: expected text, got a mapping"),
        ("    phrasings:\n    - a\n    -\n", "faq.yaml:7: phrasings[1]: expected text, got nothing"),
        ("    phrasings:\n    - a\n    - ' '\n", "faq.yaml:7: phrasings[1]: is empty"),
        ("    tags: [[a]]\n", "faq.yaml:5: tags[0]: expected text, got a list"),
        ("    follow_ups:\n    - nowhere\n", "faq.yaml:6: follow_ups[0]: 'nowhere' is no entry's id"),
        ("    kind: faqs\n", "faq.yaml:5: kind: invalid enum value 'faqs'"),
        ("    enabled: maybe\n", "faq.yaml:5: enabled: expected true or false, got text"),
        ("    valid_from: 2026-02-30\n", "faq.yaml:5: valid_from: "),
        ("    valid_from: soon\n", "faq.yaml:5: valid_from: "),
        ("    url: shop.example\n", "faq.yaml:5: url: 'shop.example' is not a link"),
        ("    answer: again\n", "faq.yaml:5: answer: stands here twice; keep one"),
    ],
)
def test_names_file_line_and_field(tmp_path: Path, fields: str, expected: str) -> None:
    """Whatever is wrong with one field of an entry, its file, line and path are named."""
    (line,) = refusal(write(tmp_path, FAQ + fields))
    assert line.startswith(expected)


def test_a_field_left_empty_is_as_good_as_absent(tmp_path: Path) -> None:
    """An optional field that is written without a value has its default."""
    fields = "    phrasings:\n    url:\n    tags: ~\n    kind: null\n    enabled:\n    valid_to:\n"
    assert only_entry(write(tmp_path, FAQ + fields)) == only_entry(write(tmp_path, FAQ))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("nmae: x\n", "faq.yaml:1: nmae: is not a known field; known are name, language, greeting, texts"),
        ("name: [x]\n", "faq.yaml:1: name: expected text, got a list"),
        ("name: x\nname: y\n", "faq.yaml:2: name: stands here twice; keep one"),
        ("texts:\n  nomatch: x\n", "faq.yaml:2: texts.nomatch: is not a known field; known are no_match, clarify,"),
        ("texts:\n  clarify: [x]\n", "faq.yaml:2: texts.clarify: expected text, got a list"),
        ("texts: x\n", "faq.yaml:1: texts: expected a mapping, got text"),
    ],
)
def test_names_the_fields_of_the_header(tmp_path: Path, header: str, expected: str) -> None:
    """The top of a FAQ is held to the same care as its entries."""
    (line,) = refusal(write(tmp_path, header + FAQ))
    assert line.startswith(expected)


def test_missing_fields_are_named(tmp_path: Path) -> None:
    """An entry without its question and answer is told both, at the entry's own line."""
    assert refusal(write(tmp_path, "entries:\n\n  - id: a\n    question:\n")) == [
        "faq.yaml:3: answer: is missing",
        "faq.yaml:3: question: is missing",
    ]


def test_two_entries_may_not_share_an_id_or_a_phrasing(tmp_path: Path) -> None:
    """Rules between entries are reported at the second one, with the place of the first."""
    second = "  - id: hours\n    question: when are you OPEN\n    answer: x\n"
    lines = [line.replace(f"{tmp_path}/", "") for line in refusal(write(tmp_path, FAQ + second))]
    assert lines == [
        "faq.yaml:5: id: 'hours' is taken by the entry at faq.yaml:2; ids are unique",
        (
            "faq.yaml:6: question: 'when are you OPEN' belongs to the entry 'hours' already (faq.yaml:3); "
            "a phrasing leads to one entry"
        ),
    ]


def test_problems_of_all_entries_come_at_once(tmp_path: Path) -> None:
    """One run shows an operator everything that is wrong with the fields of all entries."""
    text = "nmae: x\nentries:\n- id: a\n  foo: 1\n- {id: b, question: [], answer: x}\n- c\n"
    assert [line.split(": ")[:2] for line in refusal(write(tmp_path, text))] == [
        ["faq.yaml:1", "nmae"],
        ["faq.yaml:3", "answer"],
        ["faq.yaml:3", "question"],
        ["faq.yaml:4", "foo"],
        ["faq.yaml:5", "question"],
        ["faq.yaml:6", "entries"],
    ]


def test_aliases_of_lists_are_refused(tmp_path: Path) -> None:
    """A few lines of nested aliases would unfold into gigabytes: each second use is refused instead."""
    bomb = "    tags: &a [x, x]\n    follow_ups: &b [*a, *a, *a]\n    phrasings: [*b, *b, *b]\n"
    lines = refusal(write(tmp_path, FAQ + bomb))
    assert sum("is used again by an alias" in line for line in lines) == 6
    assert all(line.startswith("faq.yaml:") for line in lines)


def test_an_alias_of_itself_is_refused(tmp_path: Path) -> None:
    """A list that contains itself ends reading, and does not go round for ever."""
    assert any("is used again by an alias" in line for line in refusal(write(tmp_path, "entries: &e\n- *e\n")))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """Nesting beyond what can be followed is a problem of a line, not a crash, however deep it is."""
    for deep in (f"entries:\n- question: {'[' * 3000}{']' * 3000}\n", "\n" + "[" * 300_000):
        assert refusal(write(tmp_path, deep)) == ["faq.yaml:2: is nested too deeply to be a FAQ"]


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    """A YAML tag that other readers would build an object of is only a text here."""
    assert only_entry(write(tmp_path, FAQ + "    tags: [!!python/name:os.system x]\n")).tags == ("x",)
