"""Sealed folders: whole and unchanged, or refused; written aside and renamed, or not at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.errors import BundleError, SealError
from export.sealed import Sealed, _own_seal, encode_json, read_manifest, seal, sha256_of, staged, verify_files

MANIFEST = "thing.json"
REMEDY = "make it again"


class Thing(Sealed, frozen=True, kw_only=True):
    """A manifest with something in it."""

    name: str
    size: float = 0.5
    notes: tuple[str, ...] = ()


def write(folder: Path, **fields: object) -> Thing:
    """Seal two files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.bin").write_bytes(b"first")
    (folder / "b.bin").write_bytes(b"second")
    return seal(folder, msgspec.convert({"format": 1, "name": "thing", **fields}, Thing), MANIFEST)


def read(folder: Path) -> Thing:
    """Read and verify a sealed folder, as its packages do."""
    manifest = read_manifest(folder, Thing, MANIFEST, newest=1, noun="thing", remedy=REMEDY, error=BundleError)
    verify_files(folder, manifest, remedy=REMEDY, error=BundleError)
    return manifest


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_what_is_sealed_is_read_back(tmp_path: Path) -> None:
    """A sealed folder's manifest names the hash of every other file, and is read as it was written."""
    manifest = write(tmp_path)
    assert read(tmp_path) == manifest
    assert manifest.files == {name: sha256_of(tmp_path / name) for name in ("a.bin", "b.bin")}
    assert len(manifest.seal) == 64


@settings(deadline=None, max_examples=50)
@given(
    name=st.text(st.characters(codec="utf-8")),
    size=st.floats(allow_nan=False, allow_infinity=False),
    notes=st.lists(st.text(st.characters(codec="utf-8"))),
)
def test_any_manifest_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, name: str, size: float, notes: list[str]
) -> None:
    """Whatever texts and numbers a manifest holds, the seal that was written is the one that is computed again."""
    folder = tmp_path_factory.mktemp("sealed")
    written = write(folder, name=name, size=size, notes=notes)
    assert read(folder) == written


@pytest.mark.parametrize("name", ["a.bin", "b.bin"])
@pytest.mark.parametrize("position", [0, 2, -1])
def test_one_changed_byte_in_a_file_is_found(tmp_path: Path, name: str, position: int) -> None:
    """A byte that changed in any file is found, and the sentence names the file and what to do."""
    write(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[position] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BundleError) as caught:
        read(tmp_path)
    assert str(caught.value) == (f"{tmp_path / name} is damaged: its sha256 is not the one in the manifest; {REMEDY}")


def test_any_changed_byte_in_the_manifest_is_found(tmp_path: Path) -> None:
    """Whichever byte of the manifest is changed, it is refused."""
    write(tmp_path, size=0.25, notes=["x"])
    path = tmp_path / MANIFEST
    original = path.read_bytes()
    accepted = []
    for position in range(len(original)):
        data = bytearray(original)
        data[position] ^= 1
        path.write_bytes(data)
        with contextlib.suppress(BundleError):
            accepted.append((position, read(tmp_path)))
    assert accepted == []


@pytest.mark.parametrize("name", ["a.bin", "b.bin"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A file that is gone is named with what to do."""
    write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing; {REMEDY}"):
        read(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A folder in a file's place is told as what it is."""
    write(tmp_path)
    (tmp_path / "a.bin").unlink()
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(BundleError, match=r"a\.bin cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.rmdir(), "is not a thing: it does not exist; make it again"),
        (lambda _: None, "is not a thing: it has no thing.json; make it again"),
        (lambda folder: (folder / MANIFEST).mkdir(), "thing.json cannot be read"),
        (lambda folder: (folder / MANIFEST).write_bytes(b""), "thing.json is damaged"),
        (lambda folder: (folder / MANIFEST).write_bytes(b'{"format": 1'), "thing.json is damaged"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"), "thing.json is damaged"),
        (lambda folder: (folder / MANIFEST).write_bytes(b'{"format": "1"}'), "thing.json is damaged"),
        (lambda folder: (folder / MANIFEST).write_bytes(b'{"format": 1, "name": 1}'), "thing.json is damaged"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"[" * 100_000), "thing.json is damaged"),
        (lambda folder: (folder / MANIFEST).write_bytes(b'{"format": 1, "name": "x"}'), "was changed after it was"),
        (
            lambda folder: (folder / MANIFEST).write_bytes(b'{"format": 2}'),
            "has format 2 and this faqwire reads up",
        ),
    ],
)
def test_says_why_a_manifest_is_refused(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    """Whatever stands in the manifest's place is refused in one line."""
    folder = tmp_path / "thing"
    folder.mkdir()
    make(folder)
    with pytest.raises(BundleError) as caught:
        read(folder)
    assert words in str(caught.value)
    assert REMEDY in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_sealed_folder(tmp_path: Path) -> None:
    """A file where the folder should be is not a thing either."""
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BundleError, match="is not a thing: it has no"):
        read(tmp_path / "file")


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    """A later faqwire's folder is told by its format before anything else of it is read."""
    write(tmp_path, format=2)
    with pytest.raises(BundleError, match=f"upgrade faqwire, or {REMEDY}"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["../a.bin", "/etc/hostname", "sub/a.bin", "."])
def test_a_file_outside_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    """A manifest cannot make its reader look at files elsewhere."""
    folder = tmp_path / "thing"
    forged = msgspec.structs.replace(write(folder), files={name: "0" * 64})
    forged = msgspec.structs.replace(forged, seal=_own_seal(forged))
    (folder / MANIFEST).write_bytes(encode_json(forged))
    with pytest.raises(BundleError, match="names a file outside of its folder"):
        read(folder)


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
    with pytest.raises(OSError, match="no"), staged(target, MANIFEST, error=BundleError) as draft:
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


def test_the_same_value_is_the_same_bytes() -> None:
    """Canonical JSON does not depend on the order in which a mapping was filled."""
    assert encode_json({"b": 1, "a": [1.5, None]}) == encode_json({"a": [1.5, None], "b": 1})
    assert encode_json({"a": 1}) == b'{\n  "a": 1\n}\n'
