"""The server, put together: listens, answers, drains, stops."""

import asyncio
import random
import signal
from collections.abc import Callable
from datetime import date
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry

from server.address import Proxies, parse_networks
from server.admission import RETRY_SECONDS, Admission, Refusal
from server.authentication import Authenticate
from server.close_codes import GOING_AWAY, INTERNAL, TRY_AGAIN_LATER
from server.connection import Connection
from server.engine import Engine
from server.errors import JournalError, ListenError
from server.files import allow_open_files
from server.http import STALLED_SECONDS, Gate, is_loopback, url_of
from server.idling import dismiss_idle
from server.listening import listen
from server.messages import GoingAway, Limits
from server.metrics_page import MetricsPage
from server.recorder import Recorder
from server.serving import Serving, local_date
from server.settings import Settings
from server.telemetry import Metrics
from server.tls import Certificate, keep_renewed
from server.tokens import read_tokens
from server.websocket import Websocket

if TYPE_CHECKING:
    from websockets.asyncio.server import Server as WebsocketServer

    from server.journal import Journal

_log = structlog.get_logger(__name__)


# How long a client may take to answer the goodbye of a stopping server.
CLOSE_SECONDS = 2.0
# How long a stopping server writes what its journal was told.
JOURNAL_SECONDS = 5.0
# How often a lack of file handles is logged while it lasts.
COMPLAINT_SECONDS = 10.0


class Server:
    """A faqwire server in the running event loop.

    Use `start` and `stop`, or `run`, which does both and stops on SIGINT and SIGTERM.

    Args:
        engine: the loaded model and index.
        settings: how to serve.
        today: the day, for entries that are valid only at times.
        recorder: records what is asked and said of answers; None leaves that to the settings, by which nothing may.
        authenticate: checks clients' tokens; None leaves that to the settings, by which none may be needed.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        today: Callable[[], date] = local_date,
        recorder: Recorder | None = None,
        authenticate: Authenticate | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._today = today
        self._recorder = recorder
        self._journal: Journal | None = None
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
        self._admission: Admission | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._draining = False
        self._next_complaint = 0.0
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
        url = url_of(host, port)
        return url if self._settings.tls_certificate is None else url.replace("ws:", "wss:", 1)

    @property
    def metrics_url(self) -> str | None:
        """The address of the metrics page, or None where there is none."""
        return None if self._page is None else self._page.url

    @property
    def _running(self) -> Serving:
        if self._serving is None:
            raise RuntimeError("the server has not been started")
        return self._serving

    @property
    def _door(self) -> Admission:
        if self._admission is None:
            raise RuntimeError("the server has not been started")
        return self._admission

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ListenError: the address cannot be had.
            SettingsError: the certificate or the key of tokens cannot be used.
            JournalError: the journal cannot be used.
        """
        settings = self._settings
        if self._authenticate is None:
            self._authenticate = await asyncio.to_thread(read_tokens, settings)
        certificate = await asyncio.to_thread(_certificate_of, settings)
        room = allow_open_files(settings.max_connections)
        if room < 1:
            raise ListenError("the system allows too few open files to take any connection; raise `ulimit -n`")
        if room < settings.max_connections:
            _log.warning("the system allows fewer open files", max_connections=settings.max_connections, room=room)
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        if settings.metrics_port is not None:  # before the other port: what fails shall fail before anybody connects
            self._page = MetricsPage(self._metrics, settings.metrics_host, settings.metrics_port)
            await self._page.start()
        self._admission = Admission(
            most=room,
            most_per_client=settings.max_connections_per_address,
            rate=settings.connections_per_second,
            burst=settings.connection_burst,
            clock=asyncio.get_running_loop().time,
        )
        try:
            await self._open_journal()
            self._serving = Serving(self._engine, settings, self._metrics, today=self._today)
            self._listener = await listen(
                self._serve_connection,
                self._gate(),
                settings,
                certificate,
                on_too_slow=self._metrics.closings["too_slow"].inc,
                on_too_fast=self._metrics.closings["too_fast"].inc,
            )
        except (JournalError, ListenError):
            await self._stop_serving()
            raise
        self._chores.add(asyncio.create_task(dismiss_idle(self._connections, settings.idle_seconds)))
        if certificate is not None:
            self._chores.add(asyncio.create_task(keep_renewed(certificate)))
        self._tell_what_runs()

    async def _open_journal(self) -> None:
        """Open the journal that the settings name, if there is nothing else to record with."""
        if self._recorder is not None or self._settings.journal is None:
            return
        from server.journal import Journal  # a fifth of a second that a server without one need not wait

        self._recorder = self._journal = await Journal.open(self._settings, self._metrics.journal)

    def _gate(self) -> Gate:
        settings = self._settings
        return Gate(
            allowed_origins=settings.allowed_origins,
            require_origin=settings.require_origin,
            loopback=is_loopback(settings.host),
            proxies=Proxies(parse_networks(settings.trusted_proxies)),
            admit=self._admit,
            authenticate=self._authenticate,
            metrics=self._metrics,
            healthy=self._health,
            ready=self._readiness,
        )

    def _tell_what_runs(self) -> None:
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
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        pages = [] if self._page is None else [asyncio.create_task(self._page.stop())]
        ended = True if self._serving is None else await self._serving.close()
        await asyncio.gather(*pages)
        if self._journal is not None:  # last: all that was answered is told it by now
            await self._journal.close(JOURNAL_SECONDS)
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

    def _admit(self, client: str) -> Refusal | None:
        if self._draining:
            return Refusal("stopping", HTTPStatus.SERVICE_UNAVAILABLE, "The server is about to stop.", RETRY_SECONDS)
        return self._door.refuse(client)

    async def _serve_connection(self, websocket: Websocket) -> None:
        client = websocket.client
        if (refusal := self._door.enter(client)) is not None:  # others came in since its handshake was admitted
            self._metrics.refusals[refusal.cause].inc()
            websocket.dismiss(TRY_AGAIN_LATER, refusal.reason)
            return
        connection = Connection(
            websocket,
            self._running.pipeline,
            self._limits,
            self._farewell,
            self._metrics,
            hello_seconds=self._settings.hello_seconds,
            recorder=self._recorder,
            authenticate=None if websocket.authenticated else self._authenticate,
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
            self._door.leave(client)
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
            "degraded": encoder.device.degraded or self._unconfirmed() or (self._journal and self._journal.degraded),
        }


def _certificate_of(settings: Settings) -> Certificate | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate, settings.tls_key)
