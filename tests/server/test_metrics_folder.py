"""Guards `server.metrics_folder`: what is nobody's any more is removed, and nothing else."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server import metrics_folder
from server.metrics_folder import PREFIX, MetricsFolder
from tests.server.conftest import Events

# Makes a folder, says where, and lives until it is killed, or its standard input ends.
OWNER = """
import sys
from server.metrics_folder import MetricsFolder
folder = MetricsFolder.make()
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders are made during the test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def make() -> Iterator[Callable[[], MetricsFolder]]:
    """Make folders, which go with the test."""
    made: list[MetricsFolder] = []

    def one() -> MetricsFolder:
        made.append(MetricsFolder.make())
        return made[-1]

    yield one
    for folder in made:
        folder.remove()


def test_a_killed_one(place: Path, make: Callable[[], MetricsFolder], logs: Events) -> None:
    """While a process lives its folder stays, whoever starts; when it has been killed, the next start removes it."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as owner:
        assert owner.stdout is not None
        theirs = Path(owner.stdout.readline().strip())
        assert theirs.parent == place
        (theirs / "counter_1.db").touch()
        make()
        assert theirs.exists()
        owner.kill()
        owner.wait()
    ours = make()
    assert not theirs.exists()
    assert ours.path.exists()
    assert [event["folder"] for event in logs] == [str(theirs)]


def test_in_use_as_long_as_anybody_holds_it(make: Callable[[], MetricsFolder]) -> None:
    """A worker that inherits the descriptor keeps the folder when the supervisor has gone."""
    first = MetricsFolder.make()
    inherited = os.dup(first.hold())
    os.close(first._descriptor)
    make()
    assert first.path.exists()
    os.close(inherited)
    make()
    assert not first.path.exists()


def test_what_is_not_ours_stays(
    place: Path, make: Callable[[], MetricsFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a file, nor what a link leads to, nor another user's folder, nor one of another name is touched."""
    (place / f"{PREFIX}file").touch()
    (place / "elsewhere").mkdir()
    (place / f"{PREFIX}link").symlink_to(place / "elsewhere")
    (place / f"{PREFIX}folder").mkdir()
    there = set(place.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: (place / "elsewhere").stat().st_uid + 1)
        make()
        assert there <= set(place.iterdir())
    make()
    assert there - set(place.iterdir()) == {place / f"{PREFIX}folder"}


def test_one_that_was_taken_away(make: Callable[[], MetricsFolder]) -> None:
    """A folder that somebody removed is made again for the next worker, and is in use as before."""
    folder = make()
    folder.path.rmdir()
    folder.hold()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    make()
    assert folder.path.exists()


def test_another_was_first(make: Callable[[], MetricsFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    """A new folder that another server takes for an old one, before it is locked, is left to it: the next name does."""
    lock = metrics_folder._lock
    taken: list[Path] = []

    def locks(path: Path, *, sure: bool = False) -> int | None:
        if not taken and not sure:
            taken.append(path)
            path.rmdir()
        return lock(path, sure=sure)

    monkeypatch.setattr(metrics_folder, "_lock", locks)
    folder = make()
    assert folder.path not in taken
    assert folder.path.exists()
    monkeypatch.setattr(metrics_folder, "_lock", lambda _: None)
    folder.path.rmdir()
    with pytest.raises(BlockingIOError, match="being removed by another server"):
        folder.hold()
    folder.path.mkdir(exist_ok=True)


def test_where_folders_cannot_be_locked(make: Callable[[], MetricsFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without such locks is good enough to serve on; there nothing is removed."""

    def refuses(descriptor: int, operation: int) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuses)
    first, second = make(), make()
    assert first.path.exists()
    assert second.path.exists()
