"""Labelled messages, and the out-of-scope set that is shipped for calibration."""

from collections import Counter
from pathlib import Path

import pytest

from intents.build import SHIPPED_OUT_OF_SCOPE
from intents.entries import Faq
from intents.errors import MessagesError
from intents.index import phrasings_of
from intents.labelled import Labelled, read_labelled, read_out_of_scope
from intents.normalise import normalise

IDS = {"a", "b"}


def write(folder: Path, text: str | bytes) -> Path:
    """A CSV with this content."""
    path = folder / "messages.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("column", ["expected", "intent"])
def test_reads_messages_and_what_is_expected(tmp_path: Path, column: str) -> None:
    """A message names its entry under either column; empty or `oos` means that nothing answers it."""
    path = write(tmp_path, f"text,{column}\nhello,a\nweather,\n moon ,oos\nshort\n")
    messages, left_out = read_labelled(path, IDS)
    assert messages == [
        Labelled("hello", "a"),
        Labelled("weather", None),
        Labelled("moon", None),
        Labelled("short", None),
    ]
    assert left_out == []


def test_expected_goes_before_intent(tmp_path: Path) -> None:
    """Where both columns are there, `expected` is the label."""
    messages, _ = read_labelled(write(tmp_path, "intent,text,expected\na,hello,b\n"), IDS)
    assert messages == [Labelled("hello", "b")]


def test_rows_without_a_text_are_left_out(tmp_path: Path) -> None:
    """A row without a text is no message; it is told with its line."""
    messages, left_out = read_labelled(write(tmp_path, "text,expected\n ,a\nhello,a\n"), IDS)
    assert len(messages) == 1
    assert [(problem.line, problem.field) for problem in left_out] == [(2, "text")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text,expected\nx,a\ny,c\n", "messages.csv:3: expected: 'c' is no entry of the FAQ"),
        ("text,intent\ny,c\n", "messages.csv:2: intent: 'c' is no entry of the FAQ"),
        ("", "messages.csv: is empty"),
        ("text,expected\n", "messages.csv: has no messages"),
        ("text,expected\n,a\n", "messages.csv: has no messages"),
        ("text\nx\n", "messages.csv:1: has the columns ['text']; `text,expected` or `text,intent` are needed"),
        (b"text,expected\n\xe9,a\n", "messages.csv: is not UTF-8"),
    ],
)
def test_says_why_messages_cannot_be_used(tmp_path: Path, text: str | bytes, words: str) -> None:
    """A wrong label, or a file that is not such a CSV, is one sentence with file, line and field."""
    with pytest.raises(MessagesError) as caught:
        read_labelled(write(tmp_path, text), IDS)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(words)


def test_a_missing_file_of_messages_is_named(tmp_path: Path) -> None:
    """A file that is not there is the same kind of error."""
    with pytest.raises(MessagesError, match=r"messages\.csv: does not exist"):
        read_labelled(tmp_path / "messages.csv", IDS)


def test_reads_an_out_of_scope_set(tmp_path: Path) -> None:
    """Only the texts count; empty ones are passed over."""
    assert read_out_of_scope(write(tmp_path, "domain,text\nx, hello \ny,\n")) == ["hello"]


def test_an_out_of_scope_set_needs_its_columns(tmp_path: Path) -> None:
    """Another CSV in its place is refused."""
    with pytest.raises(MessagesError, match="`text,domain` are needed"):
        read_out_of_scope(write(tmp_path, "text,intent\nx,y\n"))


def test_the_shipped_set_is_large_and_has_no_doubles() -> None:
    """Calibration has at least 500 different out-of-scope messages to go by."""
    texts = read_out_of_scope(SHIPPED_OUT_OF_SCOPE)
    assert len(texts) >= 500
    assert [text for text, count in Counter(map(normalise, texts)).items() if count > 1] == []


def test_the_shipped_set_is_out_of_scope_for_the_sample(shop: Faq) -> None:
    """No shipped out-of-scope message is one that the sample FAQ has a phrasing for."""
    phrasings = phrasings_of(shop)
    assert [text for text in read_out_of_scope(SHIPPED_OUT_OF_SCOPE) if normalise(text) in phrasings] == []
