"""A sealed folder of two files, for tests."""

from pathlib import Path

import msgspec

from export.errors import BundleError
from export.sealed import Sealed, read_manifest, seal, verify_files

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
