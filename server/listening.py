"""Why an address cannot be listened on, in one sentence."""

import errno
import os
import socket

from server.errors import ListenError


def listen_error(exc: OSError | UnicodeError, setting: str, host: str, port: int, another: str) -> ListenError:
    """The error of an address that cannot be listened on.

    Args:
        exc: what was raised instead.
        setting: what sets the host.
        host: the host.
        port: the port.
        another: what to choose where the port is taken.
    """
    if isinstance(exc, (socket.gaierror, UnicodeError)):  # a name that does not exist, or cannot be one
        return ListenError(f"{setting} {host!r} is not an address of this machine ({exc})")
    if exc.errno == errno.EADDRNOTAVAIL:
        return ListenError(f"{setting} {host!r} is not an address of this machine")
    reason = os.strerror(exc.errno) if exc.errno else exc  # asyncio's own text repeats the address
    return ListenError(f"{host}:{port} cannot be listened on ({reason}); stop what uses it, or choose {another}")
