"""The versions of an index, and which of them is current.

    INDEX/
        current -> versions/20261123T081500123Z-3f2a91c4
        versions/
            20261123T081500123Z-3f2a91c4/    see `intents.index`

A version is never changed once it is there. `current` is a symbolic link that is replaced by a rename, so that a reader
finds the old version or the new one, whole.
"""

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from export.sealed import verify_files
from intents.errors import FaqIndexError
from intents.manifest import IndexManifest, read_index_manifest, remedy

CURRENT = "current"
VERSIONS = "versions"


@dataclass(frozen=True)
class Version:
    """One version of an index.

    Attributes:
        name: its folder's name.
        folder: its folder.
        current: whether it is the one that is served.
        manifest: what it is, or None where that cannot be read.
        problem: why it cannot be read, or None.
    """

    name: str
    folder: Path
    current: bool
    manifest: IndexManifest | None
    problem: str | None


def version_folder(root: Path, name: str) -> Path:
    """Where a version stands."""
    return root / VERSIONS / name


def current_folder(root: Path) -> Path:
    """The folder of the current version, with the link resolved.

    Raises:
        FaqIndexError: there is no index, or no version of it is current.
    """
    link = root / CURRENT
    if not root.is_dir():
        raise FaqIndexError(f"{root} does not exist; build it with `faqwire build FAQ -o {root}`")
    if not link.is_symlink():
        raise FaqIndexError(f"{root} is not a FAQ index: it has no current version; {remedy(root)}")
    try:
        folder = link.resolve()
    except (OSError, RuntimeError) as exc:  # a link that leads to itself; the class depends on Python's version
        raise FaqIndexError(f"{link} leads nowhere ({exc}); {remedy(root)}") from exc
    if not folder.is_dir():
        raise FaqIndexError(
            f"{root} has lost its current version {folder.name}; choose another with `faqwire index use`, or "
            f"{remedy(root)}"
        )
    return folder


def list_versions(root: Path) -> list[Version]:
    """All versions, oldest first, every file of them verified.

    Raises:
        FaqIndexError: there is no index.
    """
    if not (root / VERSIONS).is_dir():
        raise FaqIndexError(f"{root} is not a FAQ index; build one with `faqwire build FAQ -o {root}`")
    current = None
    with contextlib.suppress(FaqIndexError):
        current = current_folder(root)
    versions = []
    for folder in sorted((root / VERSIONS).iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        manifest, problem = None, None
        try:
            manifest = _verified(folder, root)
        except FaqIndexError as exc:
            problem = str(exc)
        versions.append(Version(folder.name, folder, folder.resolve() == current, manifest, problem))
    return versions


def use_version(root: Path, name: str) -> None:
    """Make a version the current one.

    Raises:
        FaqIndexError: there is no such version, it is damaged, or the link cannot be written.
    """
    folder = version_folder(root, name)
    if Path(name).name != name or not folder.is_dir():
        raise FaqIndexError(f"{root} has no version {name}; `faqwire index list --index {root}` shows those it has")
    _verified(folder, root)
    try:
        with tempfile.TemporaryDirectory(prefix=".link.", dir=root) as aside:
            link = Path(aside) / CURRENT
            link.symlink_to(Path(VERSIONS) / name)
            link.replace(root / CURRENT)
    except OSError as exc:
        raise FaqIndexError(f"{root / CURRENT} cannot be replaced ({exc.strerror})") from exc


def prune_versions(root: Path, keep: int, *, stale_before: float = 0.0) -> list[str]:
    """Remove all but the newest `keep` versions; the current one always stays.

    What an interrupted build or prune left behind goes too, if it is older than `stale_before` (seconds since 1970): a
    younger draft may be another build's that is still running.

    Returns:
        The names of those removed.

    Raises:
        FaqIndexError: there is no index, no sound version is current (an older one may be what is left to go back
            to, and nothing is removed), or a version cannot be removed.
    """
    versions = list_versions(root)
    _verified(current_folder(root), root)
    newest = {version.name for version in versions[-keep:]} if keep else set()
    removed = []
    for version in versions:
        if version.current or version.name in newest:
            continue
        # Renamed first: a reader that lists versions meanwhile never meets half of one.
        doomed = version.folder.with_name(f".{version.name}.removed")
        try:
            version.folder.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as exc:
            raise FaqIndexError(f"{version.folder} cannot be removed ({exc.strerror})") from exc
        removed.append(version.name)
    for left in (root / VERSIONS).glob(".*"):
        if left.suffix == ".removed" or (left.suffix == ".partial" and left.stat().st_mtime < stale_before):
            shutil.rmtree(left, ignore_errors=True)
            removed.append(left.name)
    return removed


def _verified(folder: Path, root: Path) -> IndexManifest:
    manifest = read_index_manifest(folder, root)
    verify_files(folder, manifest, remedy=remedy(root), error=FaqIndexError)
    return manifest


def current_manifest(root: Path) -> IndexManifest | None:
    """The current version's manifest, or None where there is no readable one."""
    with contextlib.suppress(FaqIndexError):
        return read_index_manifest(current_folder(root), root)
    return None
