"""Sealed folders: whole and unchanged, or refused."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.errors import BundleError
from export.sealed import _own_seal, encode_json, sha256_of
from tests.export.things import MANIFEST, REMEDY, read, write


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


def test_the_same_value_is_the_same_bytes() -> None:
    """Canonical JSON does not depend on the order in which a mapping was filled."""
    assert encode_json({"b": 1, "a": [1.5, None]}) == encode_json({"a": [1.5, None], "b": 1})
    assert encode_json({"a": 1}) == b'{\n  "a": 1\n}\n'
