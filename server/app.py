"""The server, put together: listens, answers, drains, stops."""

import asyncio
import signal
import socket
from collections.abc import Callable, Collection, Coroutine, Sequence
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
from server.draining import drain
from server.engine import Engine
from server.errors import JournalError, ListenError, SettingsError
from server.expiring import dismiss_expired
from server.files import allow_open_files
from server.handshakes import Handshakes
from server.http import STALLED_SECONDS, Gate, is_loopback
from server.idling import dismiss_idle
from server.keepalive import PING_SECONDS, Keepalive
from server.listening import Listener, address_of, bind
from server.messages import Limits
from server.metrics_page import MetricsPage
from server.recorder import Recorder
from server.reloading import Reloader
from server.serving import Serving, local_date
from server.settings import Settings
from server.telemetry import Metrics
from server.tls import Certificate, keep_renewed
from server.tokens import read_tokens
from server.watching import Watch
from server.websocket import Websocket

if TYPE_CHECKING:
    from server.journal import Journal

_log = structlog.get_logger(__name__)


# How long a client may take to answer the goodbye of a stopping server, at most.
CLOSE_SECONDS = 2.0
# What of the time to stop is kept for what comes after the last client: goodbyes, batches, the journal; at most half.
LAST_SECONDS = 8.0
# What each of these has in any case.
LEAST_SECONDS = 0.5
# How often a lack of file handles is logged while it lasts.
COMPLAINT_SECONDS = 10.0


class Server:
    """A faqwire server in the running event loop.

    Use `start` and `stop`, or `run`, which does both and stops on SIGINT and SIGTERM.

    Args:
        engine: the loaded model and index.
        settings: how to serve.
        today: the day, for entries that are valid only at times.
        sockets: bound ones to listen on, in place of those that the settings name.
        recorder: records what is asked and said of answers; None leaves that to the settings, by which nothing may.
        authenticate: checks clients' tokens; None leaves that to the settings, by which none may be needed.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        today: Callable[[], date] = local_date,
        sockets: Sequence[socket.socket] = (),
        recorder: Recorder | None = None,
        authenticate: Authenticate | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._today = today
        self._sockets = sockets
        self._recorder = recorder
        self._journal: Journal | None = None
        self._authenticate = authenticate
        self._metrics = Metrics(CollectorRegistry())
        self._page: MetricsPage | None = None
        self._watch: Watch | None = None
        self._serving: Serving | None = None
        self._retired: list[Serving] = []  # messages that are in flight may still end with these
        self._limits = Limits(
            max_text=settings.max_text,
            max_frame=settings.max_frame,
            max_in_flight=settings.max_in_flight,
            min_budget_ms=settings.min_budget_ms,
            max_budget_ms=settings.max_budget_ms,
            budget_ms=settings.budget_ms,
        )
        self._reloader: Reloader | None = None
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._keepalive = Keepalive(PING_SECONDS, self._metrics.closings["no_pong"].inc)
        self._proxies = Proxies(parse_networks(settings.trusted_proxies))
        self._handshakes = Handshakes(
            most=settings.max_handshakes,
            most_per_address=settings.max_connections_per_address,
            proxies=self._proxies,
            on_refused=lambda cause: self._metrics.refusals[cause].inc(),
        )
        self._admission: Admission | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._draining = False
        self._next_complaint = 0.0
        self._listener: Listener | None = None

    @property
    def url(self) -> str:
        """The address to connect to.

        Raises:
            RuntimeError: the server does not listen, or no more.
        """
        if self._listener is None or not self._listener.sockets:
            raise RuntimeError("the server is not listening")
        return address_of(self._listener.sockets, self._settings)

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
            SettingsError: the certificate or the key of tokens cannot be used, or what sends traces is not there.
            JournalError: the journal cannot be used.
        """
        settings = self._settings
        if self._authenticate is None:
            self._authenticate = await asyncio.to_thread(read_tokens, settings)
        certificate = await asyncio.to_thread(_certificate_of, settings)
        room = allow_open_files(settings.max_connections, settings.max_handshakes)
        if room < 1:
            raise ListenError("the system allows too few open files to take any connection; raise `ulimit -n`")
        if room < settings.max_connections:
            _log.warning("the system allows fewer open files", max_connections=settings.max_connections, room=room)
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        if settings.metrics_port is not None:  # before the other port: what fails shall fail before anybody connects
            self._page = MetricsPage(self._metrics.shown(), settings.metrics_host, settings.metrics_port)
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
            self._watch = await Watch.open(settings, self._engine, self._metrics.tracing)
            self._serving = Serving(self._engine, settings, self._metrics, today=self._today)
            sockets = self._sockets or await asyncio.to_thread(bind, settings.host, settings.port)
            listener = Listener(sockets)
            await listener.start(
                self._serve_connection,
                self._gate(),
                settings,
                certificate,
                on_too_slow=self._metrics.closings["too_slow"].inc,
                on_too_fast=self._metrics.closings["too_fast"].inc,
            )
        except (JournalError, ListenError, SettingsError):
            await self._stop_serving(asyncio.get_running_loop().time())
            raise
        self._listener = listener
        self._reloader = Reloader(settings, lambda: self._engine, self._swap, self._metrics)
        self._do(self._reloader.watch())
        self._do(dismiss_idle(self._connections, settings.idle_seconds))
        self._do(self._keepalive.run())
        if self._authenticate is not None:
            self._do(dismiss_expired(self._connections))
        if certificate is not None:
            self._do(keep_renewed(certificate))
        _log.info("listening", url=self.url, **self._engine.facts, metrics=self.metrics_url)
        self._show_what_runs()

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
            proxies=self._proxies,
            handshakes=self._handshakes,
            admit=self._admit,
            authenticate=self._authenticate,
            metrics=self._metrics,
            healthy=self._health,
            ready=self._readiness,
        )

    def _show_what_runs(self) -> None:
        encoder, cross_encoder = self._engine.encoder, self._engine.cross_encoder
        self._metrics.index_in_use.switch(self._engine.index.manifest.version)
        for model in (encoder, cross_encoder):
            if model is not None:
                self._metrics.models[model.kind].in_use.switch(model.device.provider, model.variant)
        if (unconfirmed := self._unconfirmed()) is not None:
            _log.warning("nothing is confirmed", reason=unconfirmed)
        self._metrics.degradations["unconfirmed"].set(unconfirmed is not None)
        if encoder.device.degraded:
            _log.warning("running on the CPU although there is a GPU", reason=encoder.device.degraded)
            self._metrics.degradations["gpu_unused"].set(1)

    def reload(self) -> None:
        """Load the index anew, and the models where they have changed, beside all that is served.

        Raises:
            RuntimeError: the server has not been started.
        """
        if self._reloader is None:
            raise RuntimeError("the server has not been started")
        self._reloader.ask()

    def _swap(self, engine: Engine) -> None:
        """Answer what comes from here on with another engine; what is in flight ends with what it began with."""
        last = self._running
        self._engine = engine
        self._serving = Serving(engine, self._settings, self._metrics, today=self._today, before=last)
        self._retired.append(last)
        in_flight = [task for connection in self._connections for task in connection.in_flight]
        self._do(self._retire(last, in_flight))
        _log.info("reloaded", **engine.facts)
        self._show_what_runs()

    async def _retire(self, serving: Serving, in_flight: Collection["asyncio.Task[None]"]) -> None:
        if in_flight:
            await asyncio.wait(in_flight)
        await serving.close()
        self._retired.remove(serving)

    def _do(self, chore: Coroutine[Any, Any, None]) -> None:
        """Do something beside all else, until it is done or the server stops."""
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._done)

    def _done(self, chore: "asyncio.Task[None]") -> None:
        self._chores.discard(chore)
        if not chore.cancelled() and (problem := chore.exception()) is not None:
            _log.error("the event loop met a problem", problem=f"{chore.get_coro()} has ended", exc_info=problem)

    async def stop(self, *, shared: bool = False) -> bool:
        """Let all clients go, one after the other, finish what is in flight, and stop; within `drain_seconds`.

        Args:
            shared: whether other processes, which go on, have the port as well: it is theirs from the first moment.

        Returns:
            False if a model run or the journal's database hangs, and its thread cannot be ended.
        """
        if self._listener is None or self._draining:
            return True
        self._draining = True
        seconds = self._settings.drain_seconds
        ends = asyncio.get_running_loop().time() + seconds
        _log.info("draining", connections=len(self._connections))
        if shared:
            self._listener.refuse()
        # Else the port stays open meanwhile, so that /readyz can say so; handshakes are refused.
        await drain(
            self._connections,
            self._empty,
            per_second=self._settings.closings_per_second,
            seconds=seconds - min(LAST_SECONDS, seconds / 2),
        )
        goodbye = min(CLOSE_SECONDS, max(LEAST_SECONDS, (ends - asyncio.get_running_loop().time()) / 2))
        if left := await self._listener.close("the server is stopping", seconds=goodbye):
            _log.warning("clients that do not answer the goodbye are cut off", connections=left)
        ended = await self._stop_serving(ends)
        _log.info("stopped")
        return ended

    async def _stop_serving(self, ends: float) -> bool:
        """Stop all that runs beside the connections, by about that time on the event loop's clock."""

        def left() -> float:
            return max(LEAST_SECONDS, ends - asyncio.get_running_loop().time())

        chores = list(self._chores)
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        pages = [] if self._page is None else [asyncio.create_task(self._page.stop())]
        running = [*self._retired, *([] if self._serving is None else [self._serving])]
        ended = all(await asyncio.gather(*(serving.close(left()) for serving in running)))
        await asyncio.gather(*pages)
        if self._watch is not None:
            await self._watch.close()
        if self._journal is not None:  # last: all that was answered is told it by now
            ended = await self._journal.close(left()) and ended
        return ended

    async def run(self, announce: Callable[[str], None] = lambda _: None) -> bool:
        """Serve until SIGINT or SIGTERM; reload on SIGHUP.

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
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        announce(self.url)
        await stopping.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait
        return await self.stop()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what nobody awaits; a lack of file handles, which asyncio repeats for every waiting client, now and then.

        Files may run out where the system allows fewer than connections and handshakes may take.
        """
        message = str(context.get("message"))
        if "out of system resource" in message:
            if loop.time() < self._next_complaint:
                return
            self._next_complaint = loop.time() + COMPLAINT_SECONDS
            _log.error("no further connection can be accepted", reason=str(context.get("exception")))
        else:
            _log.error("the event loop met a problem", problem=message, exc_info=context.get("exception"))

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
        websocket.end_handshake()
        client = websocket.client
        if self._draining:  # it was admitted before
            websocket.dismiss(GOING_AWAY, "the server is stopping")
            return
        if (refusal := self._door.enter(client)) is not None:  # others came in since its handshake was admitted
            self._metrics.refusals[refusal.cause].inc()
            websocket.dismiss(TRY_AGAIN_LATER, refusal.reason)
            return
        now = asyncio.get_running_loop().time()
        connection = Connection(
            websocket,
            lambda: self._running.pipeline,
            self._limits,
            self._metrics,
            hello_seconds=self._settings.hello_seconds,
            recorder=self._recorder,
            authenticate=None if websocket.authenticated else self._authenticate,
            watch=self._watch,
        )
        self._connections.add(connection)
        self._empty.clear()
        self._keepalive.watch(websocket, now)
        self._metrics.connections.inc()
        try:
            await connection.serve()
        except Exception:  # noqa: BLE001 one client's fault must not be another's
            _log.exception("connection failed", connection=websocket.id.hex)
            await websocket.close(INTERNAL, "internal error")
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()
            self._keepalive.forget(websocket)
            self._door.leave(client)
            self._metrics.connections.dec()

    @property
    def problem(self) -> str | None:
        """Why the process should be replaced, or None while it works."""
        stalled = self._running.lanes.longest_run() > STALLED_SECONDS
        return f"a batch has been running for over {STALLED_SECONDS:.0f} s" if stalled else None

    def _health(self) -> dict[str, object]:
        return {"problem": self.problem}

    def _readiness(self) -> dict[str, object]:
        encoder, cross_encoder = self._engine.encoder, self._engine.cross_encoder
        problem = "draining" if self._draining else self.problem
        return {
            "problem": problem,
            "index": self._engine.index.manifest.version,
            "model": encoder.bundle.manifest.source.model,
            "variant": encoder.variant,
            "provider": encoder.device.provider,
            "cross_encoder": None if cross_encoder is None else cross_encoder.bundle.manifest.source.model,
            "degraded": encoder.device.degraded
            or self._unconfirmed()
            or (self._journal and self._journal.degraded)
            or (self._reloader and self._reloader.problem),
        }


def _certificate_of(settings: Settings) -> Certificate | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate, settings.tls_key)
