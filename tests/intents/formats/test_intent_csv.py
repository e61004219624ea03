"""Intent data sets as FAQs, and the tables that all CSV files are read as."""

from pathlib import Path

import pytest

from intents.entries import Entry
from intents.errors import FaqError
from intents.formats import Loaded, load_faq
from intents.formats.table import TableError, read_table


def load(folder: Path, text: str | bytes) -> Loaded:
    """Read a CSV with this content."""
    path = folder / "bank.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_faq(path)


def test_an_intent_is_an_entry(tmp_path: Path) -> None:
    """An intent's first text is the question, the others are phrasings; without answers its name stands in."""
    loaded = load(tmp_path, "text,intent\nlost my card,lost_card\nhello,greeting\ncard gone,lost_card\n")
    assert loaded.faq.entries == (
        Entry(id="lost_card", question="lost my card", answer="lost_card", phrasings=("card gone",)),
        Entry(id="greeting", question="hello", answer="greeting"),
    )
    assert loaded.faq.header.name == "bank"
    assert loaded.left_out == ()


def test_takes_the_first_answer_of_an_intent(tmp_path: Path) -> None:
    """Where the optional column `answer` is there, an intent's first answer is its entry's."""
    loaded = load(tmp_path, "answer,text,intent\n,a,x\nfirst,b,x\nsecond,c,x\n")
    assert loaded.faq.entries[0].answer == "first"


def test_rows_that_are_left_out_are_told(tmp_path: Path) -> None:
    """Empty texts, out-of-scope rows, and texts that another intent has already are left out, each with its line."""
    loaded = load(tmp_path, 'text,intent\n"two\nlines",a\n ,a\nx,\ny,oos\nTwo  lines!,b\ntwo lines,a\n')
    assert [(p.line, p.field) for p in loaded.left_out] == [(4, "text"), (5, "intent"), (6, "intent"), (7, "text")]
    assert "belongs to 'a'" in loaded.left_out[-1].message
    assert [(e.id, e.question, e.phrasings) for e in loaded.faq.entries] == [("a", "two\nlines", ("two lines",))]


def test_ids_keep_the_rules_of_entries(tmp_path: Path) -> None:
    """An intent whose name cannot be an id is refused at the line where it first stands."""
    with pytest.raises(FaqError, match=r"bank\.csv:3: id: 'lost card' has white space"):
        load(tmp_path, "text,intent\nhello,greeting\ncard gone,lost card\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "bank.csv: is empty; a header row is expected"),
        ("\n\n", "bank.csv: is empty; a header row is expected"),
        ("text,intent\n", "bank.csv: has no row with a text and an intent"),
        ("text,intent\n,a\nb,oos\n", "bank.csv: has no row with a text and an intent"),
        ("text,label\na,b\n", "bank.csv:1: has the columns ['text', 'label']; `text,intent` are needed"),
        ("text,intent\na,b\nyes, please,b\n", "bank.csv:3: has 3 fields under 2 columns; quote the commas"),
        ('text,intent\n"a,b\n', "bank.csv:2: is not valid CSV"),
        (b"text,intent\ncaf\xe9,a\n", "bank.csv: is not UTF-8"),
        (b"\xff\xfet\x00", "bank.csv: is not UTF-8"),
    ],
)
def test_says_why_a_file_is_no_intent_data_set(tmp_path: Path, text: str | bytes, words: str) -> None:
    """What is not such a CSV is refused in one line, with the line of the file where there is one."""
    with pytest.raises(FaqError) as caught:
        load(tmp_path, text)
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(words)
    assert len(caught.value.problems) == 1


def test_a_table_has_lines_and_fields(tmp_path: Path) -> None:
    """Rows come with the line they begin on; blank lines are skipped, and short rows are filled up."""
    path = tmp_path / "table.csv"
    path.write_bytes('\ufeff\r\n text , intent\r\n"a\r\nb",x\r\n\r\nc\r\n'.encode())
    assert list(read_table(path, [("text", "intent")])) == [
        (3, {"text": "a\r\nb", "intent": "x"}),
        (6, {"text": "c", "intent": ""}),
    ]


@pytest.mark.parametrize("header", ["text,intent", "label,text", "text,intent,label"])
def test_one_whole_set_of_columns_is_enough(tmp_path: Path, header: str) -> None:
    """Any one of the sets of columns makes the table, in any order and among others."""
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n", encoding="utf-8")
    assert list(read_table(path, [("text", "intent"), ("text", "label")])) == []


def test_the_columns_that_would_do_are_named(tmp_path: Path) -> None:
    """Where no set of columns is whole, the sentence lists all that would do."""
    path = tmp_path / "table.csv"
    path.write_text("intent,label\n", encoding="utf-8")
    with pytest.raises(TableError, match="`text,intent` or `text,label` are needed"):
        list(read_table(path, [("text", "intent"), ("text", "label")]))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    """A file that is not there is an error of the table, which readers turn into their own."""
    with pytest.raises(TableError, match=r"table\.csv: does not exist"):
        list(read_table(tmp_path / "table.csv", [("text",)]))


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    """What cannot be opened is said to be so."""
    with pytest.raises(TableError, match="cannot be read"):
        list(read_table(tmp_path, [("text",)]))
