"""The folder in which several workers keep the values of their metrics: one of a server's own, for as long as it lives.

A server takes its folder away when it ends; one that is killed cannot. So the folder is locked, by whoever has the
descriptor: the supervisor and its workers, which inherit it. The system lets go of the lock when the last of them has
ended, however it ended, and a folder that can be locked belongs to nobody: the next server in the same place removes
it. No process id is written down: another process might get it, and in another container it means nothing.

Two may reach for one folder, the server that has just made it and another that tidies up. Whoever has locked it looks
whether it is still there: if not, the other was first. (`systemd-tmpfiles` leaves locked folders alone likewise.)
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import structlog

_log = structlog.get_logger(__name__)

PREFIX = "faqwire-metrics-"
# Memory, where there is a place for it: nobody tidies up there by and by, and it costs least.
MEMORY = Path("/dev/shm")  # noqa: S108 the folder has a name that nobody guesses, and is its owner's alone


class MetricsFolder:
    """A folder that is locked; blocking, and not to be called from an event loop.

    Args:
        path: the folder, which is there.
        descriptor: what has its lock; this one's to close.

    Attributes:
        path: the same.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def make(cls) -> Self:
        """Make one, and remove those of servers that were killed.

        Raises:
            OSError: there is no place for it.
        """
        place = _place()
        _tidy_up(place)
        while True:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            descriptor = _lock(path)
            if descriptor is not None:
                return cls(path, descriptor)

    def hold(self) -> int:
        """See that the folder is there, which somebody who tidies up may have taken.

        Returns:
            The descriptor for a worker to inherit: while it is open, the folder is in use.

        Raises:
            OSError: it cannot be made again now.
        """
        if not _is_at(self._descriptor, self.path):
            self.path.mkdir(mode=0o700, exist_ok=True)
            descriptor = _lock(self.path)
            if descriptor is None:
                raise BlockingIOError(f"{self.path} is being removed by another server")
            os.close(self._descriptor)
            self._descriptor = descriptor
        return self._descriptor

    def remove(self) -> None:
        """Take the folder away, as far as that can be done."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def _place() -> Path:
    """Where folders are made."""
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK | os.X_OK):
        return MEMORY
    return Path(tempfile.gettempdir())


def _tidy_up(place: Path) -> None:
    """Remove folders that no server has; what is another user's, or cannot be removed, stays."""
    for path in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it may have gone meanwhile
            if path.lstat().st_uid != os.geteuid() or (descriptor := _lock(path, sure=True)) is None:
                continue
            try:
                shutil.rmtree(path)
                _log.info("metrics of a server that was killed are removed", folder=str(path))
            finally:
                os.close(descriptor)


def _lock(path: Path, *, sure: bool = False) -> int | None:
    """Lock a folder.

    Args:
        path: the folder.
        sure: whether a file system that locks no folders counts as one where somebody else has the lock; else
            nobody can have it, and nobody removes the folder of anybody.

    Returns:
        What has the lock; None where somebody else has it, or has removed the folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = True
    except OSError as exc:
        ours = not sure and not isinstance(exc, BlockingIOError)
    if ours and _is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open folder is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
