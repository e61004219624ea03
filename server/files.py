"""How many files, sockets among them, this process may have open."""

import resource
from contextlib import suppress

import structlog

from server.errors import ListenError
from server.settings import Settings

_log = structlog.get_logger(__name__)

# Files that are open beside the connections: the model, the index, the log, and the event loop's own.
SPARE = 128


def allow_open_files(connections: int, handshakes: int = 0) -> int:
    """Raise the soft limit as far as these connections need, and the hard limit allows.

    Args:
        connections: how many are to be held.
        handshakes: how many more may be about to become connections.

    Returns:
        How many connections there is room for while no handshake is under way; below 1 there is none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + handshakes + SPARE
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):  # macOS has a further limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return connections if soft == resource.RLIM_INFINITY else min(connections, soft - SPARE)


def room_for_clients(settings: Settings) -> int:
    """How many connections a server has room for; fewer than it is set to take are logged.

    Raises:
        ListenError: there is no room for any.
    """
    room = allow_open_files(settings.max_connections, settings.max_handshakes)
    if room < 1:
        raise ListenError("the system allows too few open files to take any connection; raise `ulimit -n`")
    if room < settings.max_connections:
        _log.warning("the system allows fewer open files", max_connections=settings.max_connections, room=room)
    return room
