"""The versions of an index: listing, switching, rolling back, cleaning up."""

import os
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from intents.entries import Faq
from intents.errors import FaqIndexError
from intents.index import VECTORS
from intents.manifest import MANIFEST
from intents.store import (
    CURRENT,
    VERSIONS,
    current_folder,
    current_manifest,
    list_versions,
    prune_versions,
    use_version,
    version_folder,
)
from tests.intents.small import SMALL, Builder


@pytest.fixture(scope="module")
def built(build_quickly: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three versions, a day apart; the last is current."""
    root = tmp_path_factory.mktemp("versions") / "index"
    for day in (1, 2, 3):
        header = msgspec.structs.replace(SMALL.header, name=f"day {day}")
        faq = Faq(header=header, entries=SMALL.entries[:2])
        build_quickly(faq, root, now=datetime(2026, 11, day, tzinfo=UTC))
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A copy of it, to do with as a test likes."""
    return shutil.copytree(built, tmp_path / "index", symlinks=True)


def names(root: Path) -> list[str]:
    """The names of all versions."""
    return [version.name for version in list_versions(root)]


def test_versions_stand_oldest_first(root: Path) -> None:
    """Versions are listed in the order in which they were built, and one is current."""
    versions = list_versions(root)
    assert [version.name[:8] for version in versions] == ["20261101", "20261102", "20261103"]
    assert [version.current for version in versions] == [False, False, True]
    assert all(v.problem is None and v.manifest and v.manifest.version == v.name for v in versions)
    assert [version.folder for version in versions] == [version_folder(root, name) for name in names(root)]


def test_an_unreadable_version_is_listed_with_its_problem(root: Path) -> None:
    """One damaged version does not hide the others, and its problem is told."""
    broken = list_versions(root)[1].folder
    (broken / MANIFEST).write_text("{}", encoding="utf-8")
    first, second, third = list_versions(root)
    assert first.manifest
    assert third.manifest
    assert second.manifest is None
    assert second.problem is not None
    assert str(broken / MANIFEST) in second.problem


def test_what_is_being_written_is_not_listed(root: Path) -> None:
    """Hidden folders, which a build or a clean-up has in hand, are no versions; nor are stray files."""
    (root / VERSIONS / ".half.partial").mkdir()
    (root / VERSIONS / "notes.txt").write_text("x", encoding="utf-8")
    assert len(names(root)) == 3


def test_an_older_version_can_be_used_again(root: Path) -> None:
    """Rolling back moves one link and nothing else, and so does rolling forward."""
    oldest, _, newest = names(root)
    for name in (oldest, newest, oldest):
        use_version(root, name)
        assert current_folder(root) == version_folder(root, name)
        manifest = current_manifest(root)
        assert manifest is not None
        assert manifest.version == name
        assert len(names(root)) == 3
    assert (root / CURRENT).readlink() == Path(VERSIONS) / oldest
    assert sorted(path.name for path in root.iterdir()) == [CURRENT, VERSIONS]


def test_an_index_may_be_moved(root: Path, tmp_path: Path) -> None:
    """The link is relative: an index that is moved as a whole still works."""
    moved = root.rename(tmp_path / "elsewhere")
    assert current_folder(moved).parent == moved.resolve() / VERSIONS


@pytest.mark.parametrize("name", ["nothing", "", ".", "..", "../..", "/tmp", ".hidden"])  # noqa: S108
def test_an_unknown_version_is_refused(root: Path, name: str) -> None:
    """Only a version of this index can be used: no other name, and no way out of its folder."""
    before = current_folder(root)
    with pytest.raises(FaqIndexError):
        use_version(root, name)
    assert current_folder(root) == before


def test_a_version_has_one_name(root: Path) -> None:
    """A detour that leads to a version is not its name, and does not end up in the link."""
    with pytest.raises(FaqIndexError, match="has no version"):
        use_version(root, f"../{VERSIONS}/{names(root)[0]}")


def test_the_sentence_says_how_to_list_versions(root: Path) -> None:
    """Whoever mistypes a version is told how to see those there are."""
    with pytest.raises(FaqIndexError, match=f"`faqwire index list --index {root}` shows those it has"):
        use_version(root, "nothing")


@pytest.mark.parametrize("name", [MANIFEST, VECTORS])
def test_a_damaged_version_is_not_used(root: Path, name: str) -> None:
    """A version that could not be served is not made current: what is served stays."""
    before, broken = current_folder(root), list_versions(root)[0]
    (broken.folder / name).write_bytes(b"{}")
    with pytest.raises(FaqIndexError, match=name):
        use_version(root, broken.name)
    assert current_folder(root) == before


def test_a_reader_always_finds_a_current_version(root: Path) -> None:
    """While versions are switched, a reader finds the one or the other, and never none."""
    first, second, _ = names(root)
    stop, seen = threading.Event(), set()
    faults: list[Exception] = []

    def read() -> None:
        try:
            while not stop.is_set():
                seen.add(current_folder(root).name)
        except FaqIndexError as exc:
            faults.append(exc)

    use_version(root, first)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(100):
            use_version(root, second)
            use_version(root, first)
    finally:
        stop.set()
        reader.join()
    assert faults == []
    assert seen <= {first, second}


@pytest.mark.parametrize(("keep", "left"), [(0, [2]), (1, [2]), (2, [1, 2]), (3, [0, 1, 2]), (9, [0, 1, 2])])
def test_pruning_keeps_the_newest(root: Path, keep: int, left: list[int]) -> None:
    """All but the newest versions go, folders and all."""
    before = names(root)
    removed = prune_versions(root, keep)
    assert names(root) == [before[i] for i in left]
    assert removed == [name for name in before if name not in names(root)]
    assert sorted(path.name for path in (root / VERSIONS).iterdir()) == names(root)


def test_pruning_keeps_the_current_version(root: Path) -> None:
    """What is served is never removed, however old it is."""
    oldest, middle, newest = names(root)
    use_version(root, oldest)
    assert prune_versions(root, 1) == [middle]
    assert names(root) == [oldest, newest]
    assert current_folder(root).name == oldest


def test_pruning_removes_damaged_versions_too(root: Path) -> None:
    """A version that cannot be read is cleaned up like any other."""
    broken = list_versions(root)[0]
    (broken.folder / MANIFEST).unlink()
    assert prune_versions(root, 2) == [broken.name]


def test_there_may_be_no_index(tmp_path: Path) -> None:
    """Where there is no index every question about it is answered with how to build one."""
    root = tmp_path / "index"
    build = f"`faqwire build FAQ -o {root}`"
    with pytest.raises(FaqIndexError, match=f"does not exist; build it with {build}"):
        current_folder(root)
    for ask in (lambda: list_versions(root), lambda: prune_versions(root, 1)):
        with pytest.raises(FaqIndexError, match=f"is not a FAQ index; build one with {build}"):
            ask()
    with pytest.raises(FaqIndexError, match="has no version"):
        use_version(root, "x")
    assert current_manifest(root) is None


def test_an_index_may_have_no_current_version(root: Path) -> None:
    """Without the link, or with something else in its place, there is no current version."""
    (root / CURRENT).unlink()
    with pytest.raises(FaqIndexError, match="it has no current version; build it again"):
        current_folder(root)
    assert current_manifest(root) is None
    assert not any(version.current for version in list_versions(root))
    use_version(root, names(root)[0])
    assert current_folder(root).name == names(root)[0]


def test_the_current_version_may_be_lost(root: Path) -> None:
    """A link to a version that somebody removed is told, with both ways out."""
    gone = current_folder(root)
    shutil.rmtree(gone)
    with pytest.raises(FaqIndexError, match=f"has lost its current version {gone.name}; choose another with"):
        current_folder(root)
    assert current_manifest(root) is None
    assert len(names(root)) == 2


def test_pruning_removes_what_was_interrupted(root: Path) -> None:
    """Drafts that were left long ago go with the old versions; a younger one may be a running build's, and stays."""
    drafts = root / VERSIONS
    for name in (".old.partial", ".young.partial", ".half.removed"):
        (drafts / name).mkdir()
    os.utime(drafts / ".old.partial", (1000, 1000))
    prune_versions(root, 3, stale_before=2000)
    assert [path.name for path in drafts.glob(".*")] == [".young.partial"]
