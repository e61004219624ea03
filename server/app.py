"""The server, put together: listens, answers, drains, stops."""

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from websockets.asyncio.server import Server as WebsocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import NegotiationError
from websockets.typing import Subprotocol

from server.authentication import Authenticate
from server.close_codes import GOING_AWAY, INTERNAL
from server.connection import Connection
from server.engine import Engine
from server.errors import ListenError
from server.feedback import FeedbackSink
from server.files import allow_open_files
from server.http import STALLED_SECONDS, Gate, is_loopback, url_of
from server.listening import listen_error
from server.messages import SUBPROTOCOL, GoingAway, Limits
from server.metrics_page import MetricsPage
from server.serving import Serving, local_date
from server.settings import Settings
from server.telemetry import Metrics

_log = structlog.get_logger(__name__)


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
        feedback: records feedback; None where it is not recorded.
        authenticate: checks clients' tokens; None where none is needed.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        today: Callable[[], date] = local_date,
        feedback: FeedbackSink | None = None,
        authenticate: Authenticate | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._today = today
        self._feedback = feedback
        self._authenticate = authenticate
        self._metrics = Metrics(CollectorRegistry())
        self._page: MetricsPage | None = None
        self._serving: Serving | None = None
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

    @property
    def metrics_url(self) -> str | None:
        """The address of the metrics page, or None where there is none."""
        return None if self._page is None else self._page.url

    @property
    def _running(self) -> Serving:
        if self._serving is None:
            raise RuntimeError("the server has not been started")
        return self._serving

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
        if settings.metrics_port is not None:  # before the other port: what fails shall fail before anybody connects
            self._page = MetricsPage(self._metrics, settings.metrics_host, settings.metrics_port)
            await self._page.start()
        self._serving = Serving(self._engine, settings, self._metrics, today=self._today)
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
        except (OSError, UnicodeError) as exc:
            await self._stop_serving()
            raise listen_error(
                exc, "host", settings.host, settings.port, "another --port (0 picks a free one)"
            ) from exc
        encoder, cross_encoder = self._engine.encoder, self._engine.cross_encoder
        _log.info(
            "listening",
            url=self.url,
            model=encoder.bundle.manifest.source.model,
            variant=encoder.variant,
            provider=encoder.device.provider,
            sessions=encoder.sessions,
            cross_encoder=None if cross_encoder is None else cross_encoder.bundle.manifest.source.model,
            index=self._engine.index.manifest.version,
            entries=self._engine.index.manifest.entries,
            metrics=self.metrics_url,
        )
        self._metrics.index_in_use.switch(self._engine.index.manifest.version)
        for model in (encoder, cross_encoder):
            if model is not None:
                self._metrics.models[model.kind].in_use.switch(model.device.provider, model.variant)
        if (unconfirmed := self._unconfirmed()) is not None:
            _log.warning("nothing is confirmed", reason=unconfirmed)
            self._metrics.degradations["unconfirmed"].set(1)
        if encoder.device.degraded:
            _log.warning("running on the CPU although there is a GPU", reason=encoder.device.degraded)
            self._metrics.degradations["gpu_unused"].set(1)

    async def stop(self) -> bool:
        """Tell every client, finish what is in flight, for as long as `drain_seconds`; then close with 1001.

        Returns:
            False if a model run hangs, and its thread cannot be ended.
        """
        if self._listener is None:
            return True
        self._draining = True
        _log.info("draining", connections=len(self._connections))
        # The port stays open meanwhile, so that /readyz can say so; handshakes and new requests are refused.
        farewells = {asyncio.create_task(connection.go_away()) for connection in self._connections}
        if waited_for := farewells.union(*(connection.in_flight for connection in self._connections)):
            await asyncio.wait(waited_for, timeout=self._settings.drain_seconds)
        for farewell in farewells:
            farewell.cancel()  # of clients that do not read
        self._listener.close(code=GOING_AWAY, reason="the server is stopping")
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._listener.wait_closed()
        except TimeoutError:
            _log.warning("clients that do not answer the goodbye are cut off", connections=len(self._connections))
            for connection in list(self._connections):
                connection.abort()
        ended = await self._stop_serving()
        _log.info("stopped")
        return ended

    def _farewell(self) -> GoingAway | None:
        """What a client is told of the server's stopping, with a delay of its own; None while it goes on."""
        if not self._draining:
            return None
        delay = random.uniform(0, self._settings.reconnect_seconds)  # noqa: S311 no secret
        return GoingAway(round(1000 * delay))

    async def _stop_serving(self) -> bool:
        pages = [] if self._page is None else [asyncio.create_task(self._page.stop())]
        ended = True if self._serving is None else await self._serving.close()
        await asyncio.gather(*pages)
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

    def _unconfirmed(self) -> str | None:
        """Why nothing is confirmed, where something was meant to be."""
        if self._engine.cross_encoder is None and self._engine.index.confirmer is not None:
            return "the index was built with a cross-encoder, and none is set"
        return None

    def _full(self) -> str | None:
        if self._draining:
            self._metrics.refusals["stopping"].inc()
            return "The server is about to stop."
        if len(self._connections) >= self._max_connections:
            self._metrics.refusals["connections"].inc()
            return "The server has as many connections as it takes."
        return None

    async def _serve_connection(self, websocket: ServerConnection) -> None:
        connection = Connection(
            websocket,
            self._running.pipeline,
            self._limits,
            self._farewell,
            self._metrics,
            feedback=self._feedback,
            authenticate=self._authenticate,
        )
        self._connections.add(connection)
        self._metrics.connections.inc()
        try:
            await connection.serve()
        except Exception:  # noqa: BLE001 one client's fault must not be another's
            _log.exception("connection failed")
            await websocket.close(INTERNAL, "internal error")
        finally:
            self._connections.discard(connection)
            self._metrics.connections.dec()

    def _health(self) -> dict[str, object]:
        stalled = self._running.lanes.longest_run() > STALLED_SECONDS
        return {"problem": f"a batch has been running for over {STALLED_SECONDS:.0f} s" if stalled else None}

    def _readiness(self) -> dict[str, object]:
        encoder, cross_encoder = self._engine.encoder, self._engine.cross_encoder
        problem = "draining" if self._draining else self._health()["problem"]
        return {
            "problem": problem,
            "index": self._engine.index.manifest.version,
            "model": encoder.bundle.manifest.source.model,
            "variant": encoder.variant,
            "provider": encoder.device.provider,
            "cross_encoder": None if cross_encoder is None else cross_encoder.bundle.manifest.source.model,
            "degraded": encoder.device.degraded or self._unconfirmed(),
        }


def _select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; a client that offers none is taken at its word, one that offers others is refused."""
    del connection
    if not offered:
        return None
    if SUBPROTOCOL in offered:
        return Subprotocol(SUBPROTOCOL)
    raise NegotiationError(f"unsupported subprotocol; this server speaks {SUBPROTOCOL}")
