"""Sealed folders: what faqwire writes is whole, unchanged and readable by this version, or it is refused.

A sealed folder holds a JSON manifest that names the sha256 of every other file in it, and the sha256 of itself. It is
written beside its final place and renamed into it, so that a reader sees all of it or nothing, and a writer that is
interrupted leaves nothing behind.
"""

import contextlib
import glob
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from export.errors import SealError

# A draft that was not touched for so long is not a running process's.
STALE_SECONDS = 24 * 3600


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a manifest that sealing owns.

    Attributes:
        format: version of the folder's layout; a newer one than the reader's is refused.
        files: sha256 (hexadecimal) of every other file in the folder, by plain file name.
        seal: sha256 of this manifest's canonical JSON with an empty seal.
    """

    format: int
    files: dict[str, str] = {}
    seal: str = ""


S = TypeVar("S", bound=Sealed)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_seal(manifest: Sealed) -> str:
    return hashlib.sha256(
        msgspec.json.encode(msgspec.structs.replace(manifest, seal=""), order="deterministic")
    ).hexdigest()


def seal(folder: Path, manifest: S, manifest_name: str) -> S:
    """Hash every file in `folder`, write the manifest beside them, and return it as written."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != manifest_name}
    manifest = msgspec.structs.replace(manifest, files=files)
    manifest = msgspec.structs.replace(manifest, seal=_own_seal(manifest))
    (folder / manifest_name).write_bytes(encode_json(manifest))
    return manifest


def read_manifest(
    folder: Path,
    manifest_type: type[S],
    manifest_name: str,
    *,
    newest: int,
    noun: str,
    remedy: str,
    error: type[SealError],
) -> S:
    """Read and check a sealed folder's manifest, without reading the other files.

    Args:
        folder: the sealed folder.
        manifest_type: the manifest's struct.
        manifest_name: its file name.
        newest: the newest `format` this version reads.
        noun: what the folder is, for the sentence ("model bundle").
        remedy: what to do, for the sentence ("run `faqwire export` ...").
        error: the class to raise.

    Raises:
        SealError: (as `error`) the manifest is missing, damaged, or of another format.
    """
    path = folder / manifest_name
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        found = "does not exist" if not folder.exists() else f"has no {manifest_name}"
        raise error(f"{folder} is not a {noun}: it {found}; {remedy}") from None
    except OSError as exc:
        raise error(f"{path} cannot be read ({exc.strerror}); {remedy}") from exc
    try:
        version = msgspec.json.decode(data, type=Sealed).format
        if version > newest:
            raise error(
                f"{folder} has format {version} and this faqwire reads up to {newest}: upgrade faqwire, or {remedy}"
            )
        if version < newest:
            raise error(f"{folder} has format {version}, which this faqwire does not read any more; {remedy}")
        manifest = msgspec.json.decode(data, type=manifest_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise error(f"{path} is damaged ({exc}); {remedy}") from exc
    if _own_seal(manifest) != manifest.seal:
        raise error(f"{path} was changed after it was written; {remedy}")
    if any(Path(name).name != name for name in manifest.files):
        raise error(f"{path} names a file outside of its folder; {remedy}")
    return manifest


def verify_files(folder: Path, manifest: Sealed, *, remedy: str, error: type[SealError]) -> None:
    """Compare every file of a sealed folder with its manifest.

    Raises:
        SealError: (as `error`) a file is missing or its bytes are not those that were sealed.
    """
    for name, expected in manifest.files.items():
        try:
            actual = sha256_of(folder / name)
        except FileNotFoundError:
            raise error(f"{folder / name} is missing; {remedy}") from None
        except OSError as exc:
            raise error(f"{folder / name} cannot be read ({exc.strerror}); {remedy}") from exc
        if actual != expected:
            raise error(f"{folder / name} is damaged: its sha256 is not the one in the manifest; {remedy}")


@contextlib.contextmanager
def staged(target: Path, manifest_name: str, *, error: type[SealError]) -> Iterator[Path]:
    """A fresh folder beside `target` that becomes `target` when the block ends, and vanishes when it raises.

    An existing `target` that holds `manifest_name` is replaced by two renames, and put back if the second fails.

    Raises:
        SealError: (as `error`) the place cannot be written, or holds something that faqwire did not make.
    """
    target = target.absolute()
    ours = target.is_dir() and ((target / manifest_name).is_file() or not any(target.iterdir()))
    if not ours and (target.exists() or target.is_symlink()):
        raise error(f"{target} exists and was not made by faqwire: choose another place, or move it away")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as exc:
        raise error(f"{target} cannot be written ({exc.strerror}): choose another place") from exc
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp makes it private, and a server may run as another user
        _move_into_place(folder, target)
    except OSError as exc:
        raise error(f"{target} cannot be written ({exc.strerror or exc}): check the space that is left") from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(target: Path) -> None:
    """Remove drafts of the same target that a killed process left; a younger one may be another's that is running."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        if time.time() - draft.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(draft, ignore_errors=True)


def _move_into_place(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():
            raise
        replaced = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".replaced", dir=target.parent))
        target.rename(replaced / "it")
        try:
            folder.rename(target)
        except BaseException:
            (replaced / "it").rename(target)
            raise
        finally:
            shutil.rmtree(replaced, ignore_errors=True)


def encode_json(value: Any) -> bytes:
    """Canonical, indented JSON: the same value gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2) + b"\n"
