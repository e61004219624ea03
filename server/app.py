"""The server, put together: listens, answers, drains, stops."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

import structlog
from websockets.asyncio.server import Server as WebsocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import NegotiationError
from websockets.typing import Subprotocol

from export.runtime.tokens import Tokens
from server.batching import MicroBatcher
from server.connection import Connection
from server.engine import Engine, Searched
from server.errors import ListenError
from server.files import allow_open_files
from server.http import STALLED_SECONDS, Gate, is_loopback, url_of
from server.messages import SUBPROTOCOL, Limits
from server.pipeline import Pipeline
from server.settings import Settings

_log = structlog.get_logger(__name__)


def local_date() -> date:
    """The day where the server runs, by which entries are valid or not."""
    return datetime.now().astimezone().date()


# How long a client may take to answer the goodbye of a stopping server.
CLOSE_SECONDS = 2.0
# How often a lack of file handles is logged while it lasts.
COMPLAINT_SECONDS = 10.0


class Server:
    """A faqwire server in the running event loop.

    Use `start` and `stop`, or `run`, which does both and stops on SIGINT and SIGTERM.

    Args:
        engine: the loaded model and index.
        settings: how to serve.
        today: the day, for entries that are valid only at times.
    """

    def __init__(self, engine: Engine, settings: Settings, *, today: Callable[[], date] = local_date) -> None:
        self._engine = engine
        self._settings = settings
        self._batcher = MicroBatcher[Tokens, Searched](
            engine.retrieve,
            length=len,
            lanes=engine.encoder.sessions,
            max_queue=settings.max_queue,
            max_batch=settings.max_batch,
            max_tokens=settings.max_batch_tokens,
        )
        self._pipeline = Pipeline(engine, self._batcher, today)
        self._limits = Limits(
            max_text=settings.max_text,
            max_frame=settings.max_frame,
            max_in_flight=settings.max_in_flight,
            min_budget_ms=settings.min_budget_ms,
            max_budget_ms=settings.max_budget_ms,
            budget_ms=settings.budget_ms,
        )
        self._connections: set[Connection] = set()
        self._draining = False
        self._next_complaint = 0.0
        self._max_connections = settings.max_connections
        self._listener: WebsocketServer | None = None

    @property
    def url(self) -> str:
        """The address to connect to.

        Raises:
            RuntimeError: the server does not listen, or no more.
        """
        if self._listener is None or not self._listener.sockets:
            raise RuntimeError("the server is not listening")
        host, port, *_ = next(iter(self._listener.sockets)).getsockname()
        return url_of(host, port)

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ListenError: the address cannot be had.
        """
        settings = self._settings
        room = allow_open_files(settings.max_connections)
        if room < 1:
            raise ListenError("the system allows too few open files to take any connection; raise `ulimit -n`")
        if room < settings.max_connections:
            _log.warning("the system allows fewer open files", max_connections=settings.max_connections, room=room)
            self._max_connections = room
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        gate = Gate(
            allowed_origins=settings.allowed_origins,
            loopback=is_loopback(settings.host),
            full=self._full,
            healthy=self._health,
            ready=self._readiness,
        )
        try:
            self._listener = await serve(
                self._serve_connection,
                settings.host,
                settings.port,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                select_subprotocol=_select_subprotocol,
                process_request=gate,
                compression=None,  # costs 50 KiB a connection, and replies are small
                max_size=settings.max_frame,
                server_header=None,
            )
        except (socket.gaierror, UnicodeError) as exc:  # a name that does not exist, or cannot be one
            raise ListenError(f"host {settings.host!r} is not an address of this machine ({exc})") from exc
        except OSError as exc:
            if exc.errno == errno.EADDRNOTAVAIL:
                raise ListenError(f"host {settings.host!r} is not an address of this machine") from exc
            reason = os.strerror(exc.errno) if exc.errno else exc  # asyncio's own text repeats the address
            raise ListenError(
                f"{settings.host}:{settings.port} cannot be listened on ({reason}); "
                "stop what uses it, or choose another --port (0 picks a free one)"
            ) from exc
        encoder = self._engine.encoder
        _log.info(
            "listening",
            url=self.url,
            model=encoder.bundle.manifest.source.model,
            variant=encoder.variant,
            provider=encoder.device.provider,
            sessions=encoder.sessions,
            index=self._engine.index.manifest.version,
            entries=self._engine.index.manifest.entries,
        )
        if encoder.device.degraded:
            _log.warning("running on the CPU although there is a GPU", reason=encoder.device.degraded)

    async def stop(self) -> bool:
        """Finish what is in flight, for as long as `drain_seconds`; then close every connection with 1001.

        Returns:
            False if a model run hangs, and its thread cannot be ended.
        """
        if self._listener is None:
            return True
        self._draining = True
        _log.info("draining", connections=len(self._connections))
        # The port stays open meanwhile, so that /readyz can say so; handshakes and new requests are refused.
        if in_flight := frozenset[asyncio.Task[None]]().union(*(c.in_flight for c in self._connections)):
            await asyncio.wait(in_flight, timeout=self._settings.drain_seconds)
        self._listener.close(code=1001, reason="the server is stopping")
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._listener.wait_closed()
        except TimeoutError:
            _log.warning("clients that do not answer the goodbye are cut off", connections=len(self._connections))
            for connection in list(self._connections):
                connection.abort()
        ended = await self._batcher.close()
        _log.info("stopped")
        return ended

    async def run(self, announce: Callable[[str], None] = lambda _: None) -> bool:
        """Serve until SIGINT or SIGTERM.

        Args:
            announce: called with the address once the server listens.

        Returns:
            As `stop`.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        await self.start()
        announce(self.url)
        await stopping.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait
        return await self.stop()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what nobody awaits; a lack of file handles, which asyncio repeats for every waiting client, now and then.

        Files may run out all the same: handshakes that are not finished count as files, and not as connections.
        """
        message = str(context.get("message"))
        if "out of system resource" in message:
            if loop.time() < self._next_complaint:
                return
            self._next_complaint = loop.time() + COMPLAINT_SECONDS
            _log.error("no further connection can be accepted", reason=str(context.get("exception")))
        else:
            _log.error(message, exc_info=context.get("exception"))

    def _full(self) -> str | None:
        if self._draining:
            return "The server is about to stop."
        if len(self._connections) >= self._max_connections:
            return "The server has as many connections as it takes."
        return None

    async def _serve_connection(self, websocket: ServerConnection) -> None:
        connection = Connection(websocket, self._pipeline, self._limits, lambda: self._draining)
        self._connections.add(connection)
        try:
            await connection.serve()
        except Exception:  # noqa: BLE001 one client's fault must not be another's
            _log.exception("connection failed")
            await websocket.close(1011, "internal error")
        finally:
            self._connections.discard(connection)

    def _health(self) -> dict[str, object]:
        stalled = self._batcher.longest_run() > STALLED_SECONDS
        return {"problem": f"a batch has been running for over {STALLED_SECONDS:.0f} s" if stalled else None}

    def _readiness(self) -> dict[str, object]:
        encoder = self._engine.encoder
        problem = "draining" if self._draining else self._health()["problem"]
        return {
            "problem": problem,
            "index": self._engine.index.manifest.version,
            "model": encoder.bundle.manifest.source.model,
            "variant": encoder.variant,
            "provider": encoder.device.provider,
            "degraded": encoder.device.degraded,
        }


def _select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; a client that offers none is taken at its word, one that offers others is refused."""
    del connection
    if not offered:
        return None
    if SUBPROTOCOL in offered:
        return Subprotocol(SUBPROTOCOL)
    raise NegotiationError(f"unsupported subprotocol; this server speaks {SUBPROTOCOL}")
