"""Sealed folders are written aside and renamed into place, as a whole or not at all."""

import os
from pathlib import Path

import pytest

from export.errors import BundleError, SealError
from export.sealed import staged
from tests.export.things import MANIFEST, read, write


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    """Until the block ends nothing is in the place, then all of it is, for other users to read, and nothing is left."""
    target = tmp_path / "deep" / "thing"
    with staged(target, MANIFEST, error=BundleError) as draft:
        write(draft)
        assert draft.parent == target.parent
        assert not target.exists()
    assert read(target).name == "thing"
    assert names(target.parent) == ["thing"]
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_writer_leaves_nothing(tmp_path: Path, error: type[BaseException], *, before: bool) -> None:
    """Whatever ends the block early, there is no half folder, and what was there before is still there."""
    target = tmp_path / "thing"
    if before:
        write(target, name="old")

    def write_half(draft: Path) -> None:
        (draft / "a.bin").write_bytes(b"half")
        raise error

    with pytest.raises(error), staged(target, MANIFEST, error=BundleError) as draft:
        write_half(draft)
    assert names(tmp_path) == (["thing"] if before else [])
    if before:
        assert read(target).name == "old"


def test_its_own_folder_is_replaced(tmp_path: Path) -> None:
    """A folder that faqwire made gives way to the new one, as a whole."""
    target = tmp_path / "thing"
    write(target, name="old")
    (target / "stale.bin").write_bytes(b"x")
    with staged(target, MANIFEST, error=BundleError) as draft:
        write(draft, name="new")
        assert read(target).name == "old"
    assert read(target).name == "new"
    assert names(target) == ["a.bin", "b.bin", MANIFEST]
    assert names(tmp_path) == ["thing"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    """An empty folder holds nothing that could be lost."""
    (tmp_path / "thing").mkdir()
    with staged(tmp_path / "thing", MANIFEST, error=BundleError) as draft:
        write(draft)
    assert read(tmp_path / "thing")


def test_the_old_folder_is_put_back_when_the_new_one_cannot_be_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the last rename fails, the folder that was to be replaced is in its place again."""
    target = tmp_path / "thing"
    write(target, name="old")
    rename = Path.rename

    def fail(self: Path, to: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail)
    with (
        pytest.raises(BundleError, match="thing cannot be written"),
        staged(target, MANIFEST, error=BundleError) as draft,
    ):
        write(draft, name="new")
    assert read(target).name == "old"
    assert names(tmp_path) == ["thing"]


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_faqwire_did_not_make_is_never_replaced(tmp_path: Path, kind: str) -> None:
    """A file, a folder of other files, or a link that leads nowhere is refused before anything is done."""
    target = tmp_path / "thing"
    if kind == "file":
        target.write_bytes(b"dear")
    elif kind == "folder":
        target.mkdir()
        (target / "letter.txt").write_bytes(b"dear")
    else:
        target.symlink_to("nowhere")
    with (
        pytest.raises(BundleError, match="exists and was not made by faqwire: choose another place, or move it away"),
        staged(target, MANIFEST, error=BundleError),
    ):
        pytest.fail("the block must not be entered")
    assert names(tmp_path) == ["thing"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A place below a file is refused with a sentence."""
    (tmp_path / "file").write_bytes(b"x")
    with (
        pytest.raises(SealError, match="cannot be written"),
        staged(tmp_path / "file" / "thing", MANIFEST, error=SealError),
    ):
        pytest.fail("the block must not be entered")


def test_a_relative_place_is_one_even_if_the_writer_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative target means the folder it meant at the start."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with staged(Path("thing"), MANIFEST, error=BundleError) as draft:
        write(draft)
        os.chdir("elsewhere")
    assert read(tmp_path / "thing")


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """Old drafts of the same target go when it is written again; younger ones and other targets' stay."""
    for name in (".thing.1.partial", ".thing.2.partial", ".other.1.partial"):
        (tmp_path / name).mkdir()
    for name in (".thing.1.partial", ".other.1.partial"):
        os.utime(tmp_path / name, (1000, 1000))
    with staged(tmp_path / "thing", MANIFEST, error=BundleError) as draft:
        write(draft, name="new")
    assert names(tmp_path) == [".other.1.partial", ".thing.2.partial", "thing"]
