"""A place where an operator works: a folder with a model, an index and files, and the real command run in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from export.sealed import seal
from intents.manifest import MANIFEST, IndexManifest, read_index_manifest
from intents.store import current_folder, use_version, version_folder

Process = subprocess.Popen[str]

FAQWIRE = (str(Path(sys.executable).with_name("faqwire")),)

FAQ = """\
name: Tiny
entries:
  - id: hours
    question: When are you open?
    answer: From nine to five.
    phrasings: [opening hours, when do you open]
  - id: returns
    question: How do I return something?
    answer: Within 30 days.
    phrasings: [send it back, i want a refund]
"""
MESSAGES = "text,expected\nwhen do you open?,hours\nhow can i return this,returns\nwill it rain tomorrow,\n"


@dataclass(frozen=True)
class Site:
    """A working directory whose model and index stand where the command looks for them."""

    folder: Path

    @property
    def model(self) -> Path:
        """The bundle's folder."""
        return self.folder / "var" / "model"

    @property
    def index(self) -> Path:
        """The index's folder."""
        return self.folder / "var" / "index"

    def environment(self) -> dict[str, str]:
        """An environment in which nothing is set but what keeps a test in its own place."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("FAQWIRE_", "PYTHON"))}
        plain["FAQWIRE_METRICS_PORT"] = "0"  # whatever else runs on this machine
        return {
            **plain,
            "FAQWIRE_PORT": "1",  # nobody listens there, so that `ask` finds no stranger's server
            "FAQWIRE_PROVIDER": "cpu",
            "FAQWIRE_BUDGET_MS": "10000",  # of which a test machine may need more than a server has by default
            "FAQWIRE_SLOW_MS": "off",  # what is slow is the test machine; a line about it would be one too many
            "HF_HUB_OFFLINE": "1",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def run(
        self, *args: str, stdin: str = "", command: Sequence[str] = FAQWIRE, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `faqwire` with these arguments to its end."""
        return subprocess.run(
            [*command, *args],
            cwd=self.folder,
            env={**self.environment(), **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )

    @contextmanager
    def start(self, *args: str, stdio: Any = subprocess.PIPE) -> Iterator[Process]:
        """Run `faqwire` with these arguments in the background, and make sure that it ends."""
        process = subprocess.Popen(
            [*FAQWIRE, *args],
            cwd=self.folder,
            env=self.environment(),
            stdin=stdio,
            stdout=stdio,
            stderr=stdio,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """What is in the folder: every file by identity, size and time of change, every link by its target."""
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.folder.rglob("*")):
            status = path.lstat()
            target = path.readlink() if path.is_symlink() else None
            facts = (status.st_ino, status.st_size, status.st_mtime_ns) if path.is_file() else ()
            found[str(path.relative_to(self.folder))] = (status.st_mode, target, *facts)
        return found


def lay_out(folder: Path, model: Path, index: Path) -> Site:
    """Make a site of a bundle and an index; large files are linked, for they are read and never written in place."""
    site = Site(folder)
    for name in ("home", "tmp", "var/model"):
        (folder / name).mkdir(parents=True)
    for file in model.iterdir():
        _link(file, site.model / file.name)
    current = current_folder(index)
    shutil.copytree(current, version_folder(site.index, current.name))
    use_version(site.index, current.name)
    (folder / "faq.yaml").write_text(FAQ, encoding="utf-8")
    (folder / "messages.csv").write_text(MESSAGES, encoding="utf-8")
    return site


def add_version(site: Site, name: str, **changes: Any) -> Path:
    """Add a version to a site's index: the current one under another name, and with these changes in its manifest."""
    folder = version_folder(site.index, name)
    shutil.copytree(current_folder(site.index), folder)
    manifest: IndexManifest = read_index_manifest(folder, site.index)
    seal(folder, msgspec.structs.replace(manifest, version=name, **changes), MANIFEST)
    return folder


def _link(file: Path, link: Path) -> None:
    try:
        link.hardlink_to(file)
    except OSError:  # the two are on different file systems
        link.symlink_to(file)


Damage = Callable[[Path], None]


def missing(name: str) -> Damage:
    """The file or folder is not there."""

    def damage(folder: Path) -> None:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    return damage


def holding(name: str, content: str = "") -> Damage:
    """The file is there with this content, or empty."""

    def damage(folder: Path) -> None:
        _replace(folder / name, content.encode())

    return damage


def truncated(name: str) -> Damage:
    """The file lacks its second half."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        _replace(folder / name, data[: len(data) // 2])

    return damage


def flipped(name: str) -> Damage:
    """One bit in one byte in the middle of the file is another."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        _replace(folder / name, bytes(data))

    return damage


def folder(name: str) -> Damage:
    """There is an empty folder of that name."""
    return lambda root: (root / name).mkdir()


def both(*damages: Damage) -> Damage:
    """Several at once."""

    def damage(folder: Path) -> None:
        for one in damages:
            one(folder)

    return damage


def _replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # it may be a link to a file that others use
    path.write_bytes(data)
