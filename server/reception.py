"""Takes clients in: who may come, from the first byte on, and all who are there, until the last one has left.

A client passes three counts: of handshakes, from the moment at which its connection is accepted; of the gate, which
looks at its request; and of open connections, once its handshake is over. Whoever is in is kept alive, and sent away
where nobody uses the connection, or its token has expired; at the end all are.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from http import HTTPStatus
from typing import Any

import structlog

from server.address import Proxies, parse_networks
from server.admission import RETRY_SECONDS, Admission, Refusal
from server.authentication import Authenticate
from server.close_codes import GOING_AWAY, INTERNAL, TRY_AGAIN_LATER
from server.connection import Connection
from server.draining import drain
from server.expiring import dismiss_expired
from server.handshakes import Handshakes
from server.http import Gate, Health, is_loopback
from server.idling import dismiss_idle
from server.keepalive import PING_SECONDS, Keepalive
from server.messages import Limits
from server.pipeline import Pipeline
from server.recorder import Recorder
from server.settings import Settings
from server.telemetry import Metrics
from server.watching import Watch
from server.websocket import Websocket

_log = structlog.get_logger(__name__)


class Reception:
    """Clients on their way in and those that are there; made in a running event loop, and on it alone.

    Invariant: whoever is in `connections` is counted by `admission`, and nobody else is.

    Args:
        settings: limits, and how clients show who they are.
        metrics: told who comes, who is refused, and who is sent away.
        room: most connections at a time.
        pipeline: gives the one that answers what comes now.
        recorder: records what is asked and said of answers; None where nothing does.
        authenticate: checks clients' tokens; None where none is needed.
        watch: shown each ask that has ended.

    Attributes:
        connections: those that are open; only to be looked at.
        handshakes: those under way.
        admission: counts those that are open.
        keepalive: pings them.
        closed: whether nobody is taken in any more.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        room: int,
        pipeline: Callable[[], Pipeline],
        recorder: Recorder | None,
        authenticate: Authenticate | None,
        watch: Watch,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._pipeline = pipeline
        self._recorder = recorder
        self._authenticate = authenticate
        self._watch = watch
        self._limits = Limits(
            max_text=settings.max_text,
            max_frame=settings.max_frame,
            max_in_flight=settings.max_in_flight,
            min_budget_ms=settings.min_budget_ms,
            max_budget_ms=settings.max_budget_ms,
            budget_ms=settings.budget_ms,
        )
        self._proxies = Proxies(parse_networks(settings.trusted_proxies))
        self._empty = asyncio.Event()
        self._empty.set()
        self._clock = asyncio.get_running_loop().time
        self.connections: set[Connection] = set()
        self.handshakes = Handshakes(
            most=settings.max_handshakes,
            most_per_address=settings.max_connections_per_address,
            proxies=self._proxies,
            on_refused=lambda cause: metrics.refusals[cause].inc(),
        )
        self.admission = Admission(
            most=room,
            most_per_client=settings.max_connections_per_address,
            rate=settings.connections_per_second,
            burst=settings.connection_burst,
            clock=self._clock,
        )
        self.keepalive = Keepalive(PING_SECONDS, metrics.closings["no_pong"].inc)
        self.closed = False

    def gate(self, *, healthy: Health, ready: Health) -> Gate:
        """What requests come to first.

        Args:
            healthy: facts for /healthz, as `Gate` takes them.
            ready: facts for /readyz.
        """
        settings = self._settings
        return Gate(
            allowed_origins=settings.allowed_origins,
            require_origin=settings.require_origin,
            loopback=is_loopback(settings.host),
            proxies=self._proxies,
            handshakes=self.handshakes,
            admit=self._admit,
            authenticate=self._authenticate,
            metrics=self._metrics,
            healthy=healthy,
            ready=ready,
        )

    def chores(self) -> list[Coroutine[Any, Any, None]]:
        """What is to be done all the while there are clients, each until it is cancelled."""
        chores = [dismiss_idle(self.connections, self._settings.idle_seconds), self.keepalive.run()]
        if self._authenticate is not None:
            chores.append(dismiss_expired(self.connections))
        return chores

    @property
    def in_flight(self) -> Collection["asyncio.Task[None]"]:
        """The messages of all clients that have no reply yet."""
        return [task for connection in self.connections for task in connection.in_flight]

    async def serve(self, websocket: Websocket) -> None:
        """Serve a client whose handshake is over, until it has left; or send it away, where there is no room for it."""
        websocket.end_handshake()
        client = websocket.client
        if self.closed:  # it was admitted before
            websocket.dismiss(GOING_AWAY, "the server is stopping")
            return
        if (refusal := self.admission.enter(client)) is not None:  # others came in since its handshake was admitted
            self._metrics.refusals[refusal.cause].inc()
            websocket.dismiss(TRY_AGAIN_LATER, refusal.reason)
            return
        now = self._clock()
        connection = Connection(
            websocket,
            self._pipeline,
            self._limits,
            self._metrics,
            hello_seconds=self._settings.hello_seconds,
            recorder=self._recorder,
            authenticate=None if websocket.authenticated else self._authenticate,
            watch=self._watch,
        )
        self.connections.add(connection)
        self._empty.clear()
        self.keepalive.watch(websocket, now)
        self._metrics.connections.inc()
        try:
            await connection.serve()
        except Exception:  # noqa: BLE001 one client's fault must not be another's
            _log.exception("connection failed", connection=websocket.id.hex)
            await websocket.close(INTERNAL, "internal error")
        finally:
            self.connections.discard(connection)
            if not self.connections:
                self._empty.set()
            self.keepalive.forget(websocket)
            self.admission.leave(client)
            self._metrics.connections.dec()

    def close(self) -> None:
        """Take nobody in from here on; those that are there are answered as ever."""
        self.closed = True

    async def drain(self, seconds: float) -> None:
        """Let all clients go, one after the other; returns when they have gone, or after so many seconds."""
        await drain(self.connections, self._empty, per_second=self._settings.closings_per_second, seconds=seconds)

    def _admit(self, client: str) -> Refusal | None:
        if self.closed:
            return Refusal("stopping", HTTPStatus.SERVICE_UNAVAILABLE, "The server is about to stop.", RETRY_SECONDS)
        return self.admission.refuse(client)
