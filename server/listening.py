"""How the port is listened on, and in one sentence why it cannot be."""

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from server.errors import ListenError
from server.http import Gate, select_subprotocol
from server.logs import SILENT
from server.messages import SUBPROTOCOL
from server.settings import Settings
from server.tls import Certificate
from server.websocket import GOODBYE_SECONDS, Websocket

Handler = Callable[[Websocket], Awaitable[None]]


async def listen(
    handler: Handler,
    gate: Gate,
    settings: Settings,
    certificate: Certificate | None,
    *,
    on_too_slow: Callable[[], None],
    on_too_fast: Callable[[], None],
) -> Server:
    """Listen for websockets.

    Args:
        handler: serves a connection that is open.
        gate: answers requests, and decides whose handshakes are.
        settings: how to listen.
        certificate: what to serve TLS with; None serves without.
        on_too_slow: told of each client that does not read what it is sent.
        on_too_fast: told of each client that sends too many frames.

    Raises:
        ListenError: the address cannot be had.
    """
    tls: dict[str, Any] = {}
    if certificate is not None:
        tls["ssl"] = certificate.context
        tls["ssl_handshake_timeout"] = settings.handshake_seconds
        tls["ssl_shutdown_timeout"] = GOODBYE_SECONDS
    make = partial(
        Websocket,
        rate=settings.messages_per_second,
        burst=settings.message_burst,
        max_outgoing=settings.max_outgoing,
        send_seconds=settings.send_seconds,
        on_too_slow=on_too_slow,
        on_too_fast=on_too_fast,
    )
    try:
        return await serve(
            cast("Callable[[ServerConnection], Awaitable[None]]", handler),
            settings.host,
            settings.port,
            create_connection=cast("type[ServerConnection]", make),  # is only called
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            select_subprotocol=select_subprotocol,
            process_request=gate,
            compression=None,  # costs 50 KiB a connection, and replies are small
            max_size=settings.max_frame,
            open_timeout=settings.handshake_seconds,
            server_header=None,
            logger=SILENT,
            **tls,
        )
    except (OSError, UnicodeError) as exc:
        raise listen_error(exc, "host", settings.host, settings.port, "another --port (0 picks a free one)") from exc


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
