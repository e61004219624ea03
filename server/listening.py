"""How the port is listened on, and in one sentence why it cannot be."""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from server.close_codes import GOING_AWAY
from server.errors import ListenError
from server.http import Gate, select_subprotocol, url_of
from server.logs import SILENT
from server.messages import SUBPROTOCOL
from server.settings import Settings
from server.tls import Certificate
from server.websocket import GOODBYE_SECONDS, Websocket

# How many clients may wait to be accepted: all of a server that was restarted come at once.
BACKLOG = 1024

Handler = Callable[[Websocket], Awaitable[None]]


def bind(host: str, port: int) -> list[socket.socket]:
    """Take the addresses of a host, as `asyncio` does: a socket for each, which does not listen yet.

    Args:
        host: a name or an address.
        port: 0 takes one that is free.

    Raises:
        ListenError: an address cannot be had.
    """
    bound: list[socket.socket] = []
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(places):
            try:
                bound.append(_bound(socket.socket(family, kind, protocol), address))
            except OSError as exc:
                # A name may have addresses of a family that this machine has not.
                if exc.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT} or len(places) == 1:
                    raise
                missing = exc
        if not bound:
            raise missing
    except (OSError, UnicodeError) as exc:
        for one in bound:
            one.close()
        raise listen_error(exc, "host", host, port, "another --port (0 picks a free one)") from exc
    return bound


def address_of(sockets: Sequence[socket.socket], settings: Settings) -> str:
    """The address at which a server that listens on these sockets is reached from this machine."""
    host, port, *_ = sockets[0].getsockname()
    url = url_of(host, port)
    return url if settings.tls_certificate is None else url.replace("ws:", "wss:", 1)


def _bound(made: socket.socket, address: Any) -> socket.socket:
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


class Listener:
    """Listens for websockets on one or more sockets, which may be other processes' as well.

    Args:
        sockets: bound; they are this one's to close.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._servers: list[Server] = []

    @property
    def sockets(self) -> list[socket.socket]:
        """What is listened on; none once the port is closed."""
        return [bound for bound in self._sockets if bound.fileno() >= 0] if self._servers else []

    async def start(
        self,
        handler: Handler,
        gate: Gate,
        settings: Settings,
        certificate: Certificate | None,
        *,
        on_too_slow: Callable[[], None],
        on_too_fast: Callable[[], None],
    ) -> None:
        """Begin to listen.

        Args:
            handler: serves a connection that is open.
            gate: answers requests, and decides whose handshakes are.
            settings: how to listen.
            certificate: what to serve TLS with; None serves without.
            on_too_slow: told of each client that does not read what it is sent.
            on_too_fast: told of each client that sends too many frames.

        Raises:
            ListenError: another process listens there by now.
        """
        tls: dict[str, Any] = {}
        if certificate is not None:
            tls["ssl"] = certificate.context
            tls["ssl_handshake_timeout"] = settings.handshake_seconds
            tls["ssl_shutdown_timeout"] = GOODBYE_SECONDS
        make = partial(
            Websocket,
            handshakes=gate.handshakes,
            rate=settings.messages_per_second,
            burst=settings.message_burst,
            max_outgoing=settings.max_outgoing,
            send_seconds=settings.send_seconds,
            on_too_slow=on_too_slow,
            on_too_fast=on_too_fast,
        )
        for bound in self._sockets:
            try:
                server = await serve(
                    cast("Callable[[ServerConnection], Awaitable[None]]", handler),
                    sock=bound,
                    create_connection=cast("type[ServerConnection]", make),  # is only called
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    select_subprotocol=select_subprotocol,
                    process_request=gate,
                    compression=None,  # costs 50 KiB a connection, and replies are small
                    max_size=settings.max_frame,
                    ping_interval=None,  # costs a task and a timer a connection; `server.keepalive` does it for all
                    open_timeout=settings.handshake_seconds,
                    server_header=None,
                    logger=SILENT,
                    **tls,
                )
                self._servers.append(server)
                bound.listen(BACKLOG)
            except OSError as exc:
                await self.close("the server could not be started", seconds=0)
                another = "another --port (0 picks a free one)"
                raise listen_error(exc, "host", settings.host, settings.port, another) from exc

    def refuse(self) -> None:
        """Take no more connections; those that are there go on."""
        for server in self._servers:
            server.close(close_connections=False)

    async def close(self, reason: str, *, seconds: float) -> int:
        """Close the port, and what connections there are with 1001.

        Args:
            reason: what they are told.
            seconds: how long their clients may take to say goodbye.

        Returns:
            How many did not, and were cut off.
        """
        self.refuse()
        for bound in self._sockets[len(self._servers) :]:
            bound.close()
        for connection in self._connections():
            connection.dismiss(GOING_AWAY, reason)
        closed = asyncio.gather(*(server.wait_closed() for server in self._servers))
        try:
            async with asyncio.timeout(seconds):
                await closed
        except TimeoutError:
            left = self._connections()
            for connection in left:  # those in the middle of a handshake among them
                connection.transport.abort()
            return len(left)
        return 0

    def _connections(self) -> list[Websocket]:
        return [cast("Websocket", one) for server in self._servers for one in server.all_connections]


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
