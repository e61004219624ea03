"""How many files, sockets among them, this process may have open."""

import resource
from contextlib import suppress

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
