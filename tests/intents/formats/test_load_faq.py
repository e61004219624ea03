"""Which reader a path gets, and FAQs of several files."""

from pathlib import Path

import pytest

from intents.errors import FaqError
from intents.formats import load_faq


def write(path: Path, entry_id: str, header: str = "") -> Path:
    """A YAML file with one entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"{header}entries:\n- {{id: {entry_id}, question: about {entry_id}, answer: x}}\n", encoding="utf-8"
    )
    return path


def test_a_folder_is_one_faq(tmp_path: Path) -> None:
    """All YAML files of a folder and of those below it are one FAQ, in the order of their paths."""
    write(tmp_path / "b.yml", "second")
    write(tmp_path / "a.yaml", "first", "name: Shop\n")
    write(tmp_path / "c" / "d.yaml", "third")
    write(tmp_path / ".hidden.yaml", "hidden")
    (tmp_path / "notes.txt").write_text("no FAQ", encoding="utf-8")
    faq = load_faq(tmp_path).faq
    assert [entry.id for entry in faq.entries] == ["first", "second", "third"]
    assert faq.header.name == "Shop"


def test_only_one_file_of_a_folder_has_the_header(tmp_path: Path) -> None:
    """Two headers would contradict each other: the second is refused, and both files are named."""
    first, second = write(tmp_path / "a.yaml", "a", "name: A\n"), write(tmp_path / "b.yaml", "b", "language: de\n")
    with pytest.raises(FaqError) as caught:
        load_faq(tmp_path)
    assert str(caught.value) == f"{second}:1: has a header, and {first} has one already; keep one of them"


def test_rules_hold_across_files(tmp_path: Path) -> None:
    """An id that another file of the folder has is refused where it stands, with the place of the first."""
    first, second = write(tmp_path / "a.yaml", "same"), write(tmp_path / "b.yaml", "same")
    with pytest.raises(FaqError) as caught:
        load_faq(tmp_path)
    by_id, by_question = caught.value.problems
    assert (by_id.file, by_id.line, by_id.field) == (second, 2, "id")
    assert f"{first}:2" in by_id.message
    assert by_question.field == "question"


def test_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    """A fault in one file does not hide the faults of the next."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("- no FAQ", encoding="utf-8")
    with pytest.raises(FaqError) as caught:
        load_faq(tmp_path)
    assert [problem.file.name for problem in caught.value.problems] == ["a.yaml", "b.yaml"]


def test_a_folder_without_yaml_is_refused(tmp_path: Path) -> None:
    """A folder of other files is no FAQ."""
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(FaqError, match=r"has no \.yaml file"):
        load_faq(tmp_path)


@pytest.mark.parametrize("name", ["faq.yaml", "faq.csv", "faq"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    """What is not there is named, with what may be named instead."""
    with pytest.raises(FaqError) as caught:
        load_faq(tmp_path / name)
    assert str(caught.value) == (
        f"{tmp_path / name}: does not exist; name a FAQ file (.yaml or .csv), or a folder of them"
    )


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    """A file that no reader knows is refused by its name, unread."""
    path = tmp_path / "faq.docx"
    path.write_bytes(b"\x00")
    with pytest.raises(FaqError, match=r"reads \.yaml, \.yml and \.csv"):
        load_faq(path)


def test_only_files_that_are_shown_are_read(tmp_path: Path) -> None:
    """What is hidden, or below something hidden, is not part of a folder's FAQ; nor is a folder named like a file."""
    (tmp_path / "a.yaml").mkdir()
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "workflow.yaml").write_text("on: push", encoding="utf-8")
    with pytest.raises(FaqError, match=r"has no \.yaml file"):
        load_faq(tmp_path)
    write(tmp_path / "B.YAML", "greeting")
    assert [entry.id for entry in load_faq(tmp_path).faq.entries] == ["greeting"]


@pytest.mark.parametrize("name", ["FAQ.YAML", "FAQ.YML", "FAQ.CSV"])
def test_the_ending_may_be_upper_case(tmp_path: Path, name: str) -> None:
    """Files are told apart by their ending, however it is written."""
    path = tmp_path / name
    if name.endswith("CSV"):
        path.write_text("text,intent\nhello,greeting\n", encoding="utf-8")
    else:
        write(path, "greeting")
    assert load_faq(path).faq.entries[0].id == "greeting"
