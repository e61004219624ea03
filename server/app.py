"""The server, put together: listens, answers, drains, stops."""

import asyncio
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from datetime import date
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry

from server.authentication import Authenticate
from server.chores import Chores
from server.engine import Engine
from server.errors import JournalError, ListenError, SettingsError
from server.files import room_for_clients
from server.http import STALLED_SECONDS
from server.listening import Listener, address_of, bind
from server.metrics_page import MetricsPage
from server.reception import Reception
from server.recorder import Recorder
from server.reloading import Reloader
from server.serving import Serving, local_date
from server.settings import Settings
from server.telemetry import Metrics
from server.tls import keep_renewed, read_certificate
from server.tokens import read_tokens
from server.watching import Watch

if TYPE_CHECKING:
    from server.journal import Journal

_log = structlog.get_logger(__name__)


# How long a client may take to answer the goodbye of a stopping server, at most.
CLOSE_SECONDS = 2.0
# What of the time to stop is kept for what comes after the last client: goodbyes, batches, the journal; at most half.
LAST_SECONDS = 8.0
# What each of these has in any case.
LEAST_SECONDS = 0.5


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
        self._reloader: Reloader | None = None
        self._reception: Reception | None = None
        self._chores = Chores()
        self._stopping = False
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
    def reception(self) -> Reception:
        """Its clients.

        Raises:
            RuntimeError: the server has not been started.
        """
        if self._reception is None:
            raise RuntimeError("the server has not been started")
        return self._reception

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
        certificate = await asyncio.to_thread(read_certificate, settings)
        room = room_for_clients(settings)
        asyncio.get_running_loop().set_exception_handler(self._chores.on_loop_error)
        if settings.metrics_port is not None:  # before the other port: what fails shall fail before anybody connects
            self._page = MetricsPage(self._metrics.shown(), settings.metrics_host, settings.metrics_port)
            await self._page.start()
        try:
            await self._open_journal()
            self._watch = watch = await Watch.open(settings, self._engine, self._metrics.tracing)
            self._serving = Serving(self._engine, settings, self._metrics, today=self._today)
            self._reception = reception = Reception(
                settings,
                self._metrics,
                room=room,
                pipeline=lambda: self._running.pipeline,
                recorder=self._recorder,
                authenticate=self._authenticate,
                watch=watch,
            )
            sockets = self._sockets or await asyncio.to_thread(bind, settings.host, settings.port)
            listener = Listener(sockets)
            await listener.start(
                reception.serve,
                reception.gate(healthy=self._health, ready=self._readiness),
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
        for chore in (self._reloader.watch(), *reception.chores()):
            self._chores.do(chore)
        if certificate is not None:
            self._chores.do(keep_renewed(certificate))
        _log.info("listening", url=self.url, **self._engine.facts, metrics=self.metrics_url)
        self._running.show()

    async def _open_journal(self) -> None:
        """Open the journal that the settings name, if there is nothing else to record with."""
        if self._recorder is not None or self._settings.journal is None:
            return
        from server.journal import Journal  # a fifth of a second that a server without one need not wait

        self._recorder = self._journal = await Journal.open(self._settings, self._metrics.journal)

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
        self._chores.do(self._retire(last, self.reception.in_flight))
        _log.info("reloaded", **engine.facts)
        self._running.show()

    async def _retire(self, serving: Serving, in_flight: Collection["asyncio.Task[None]"]) -> None:
        if in_flight:
            await asyncio.wait(in_flight)
        await serving.close()
        self._retired.remove(serving)

    async def stop(self, *, shared: bool = False) -> bool:
        """Let all clients go, one after the other, finish what is in flight, and stop; within `drain_seconds`.

        Args:
            shared: whether other processes, which go on, have the port as well: it is theirs from the first moment.

        Returns:
            False if a model run or the journal's database hangs, and its thread cannot be ended.
        """
        if self._listener is None or self._stopping:
            return True
        self._stopping = True
        self.reception.close()
        seconds = self._settings.drain_seconds
        ends = asyncio.get_running_loop().time() + seconds
        _log.info("draining", connections=len(self.reception.connections))
        if shared:
            self._listener.refuse()
        # Else the port stays open meanwhile, so that /readyz can say so; handshakes are refused.
        await self.reception.drain(seconds - min(LAST_SECONDS, seconds / 2))
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

        await self._chores.stop()
        pages = [] if self._page is None else [asyncio.create_task(self._page.stop())]
        running = [*self._retired, *([] if self._serving is None else [self._serving])]
        ended = all(await asyncio.gather(*(serving.close(left()) for serving in running)))
        await asyncio.gather(*pages)
        if self._watch is not None:
            await self._watch.close()
        if self._journal is not None:  # last: all that was answered is told it by now
            ended = await self._journal.close(left()) and ended
        return ended

    async def run(
        self, announce: Callable[[str], None] = lambda _: None, asked: Callable[[], bool] = lambda: False
    ) -> bool:
        """Serve until SIGINT or SIGTERM; reload on SIGHUP.

        Args:
            announce: called with the address once the server listens.
            asked: tells whether a reload was asked for before that; it is made up for.

        Returns:
            As `stop`.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        await self.start()
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        if asked():
            self.reload()
        announce(self.url)
        await stopping.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait
        return await self.stop()

    @property
    def problem(self) -> str | None:
        """Why the process should be replaced, or None while it works."""
        stalled = self._running.lanes.longest_run() > STALLED_SECONDS
        return f"a batch has been running for over {STALLED_SECONDS:.0f} s" if stalled else None

    def _health(self) -> dict[str, object]:
        return {"problem": self.problem}

    def _readiness(self) -> dict[str, object]:
        encoder, cross_encoder = self._engine.encoder, self._engine.cross_encoder
        problem = "draining" if self.reception.closed else self.problem
        return {
            "problem": problem,
            "index": self._engine.index.manifest.version,
            "model": encoder.bundle.manifest.source.model,
            "variant": encoder.variant,
            "provider": encoder.device.provider,
            "cross_encoder": None if cross_encoder is None else cross_encoder.bundle.manifest.source.model,
            "degraded": encoder.device.degraded
            or self._engine.unconfirmed
            or (self._journal and self._journal.degraded)
            or (self._reloader and self._reloader.problem),
        }
