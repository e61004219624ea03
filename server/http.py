"""What the port serves besides websockets, and who may open one: health, origins, addresses, and tokens."""

import json
from collections.abc import Callable, Collection, Sequence
from http import HTTPStatus
from typing import cast

import structlog
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from server.address import Proxies, group_of
from server.admission import RETRY_SECONDS, Refusal
from server.authentication import Authenticate, expiry_of, tokens_of
from server.handshakes import Handshakes
from server.messages import SUBPROTOCOL
from server.telemetry import Metrics
from server.telemetry import Refusal as RefusalReason
from server.websocket import Websocket

_log = structlog.get_logger(__name__)

# A batch that runs for longer than this means that a session hangs.
STALLED_SECONDS = 10.0

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Health = Callable[[], dict[str, object]]


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this host is reached from this machine alone."""
    return host in _LOOPBACK


def url_of(host: str, port: int) -> str:
    """The address at which a server that listens on a host and a port is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 compared, not bound
    return f"ws://[{host}]:{port}/" if ":" in host else f"ws://{host}:{port}/"


class Gate:
    """Answers plain HTTP requests, and admits or refuses websocket handshakes.

    Args:
        allowed_origins: origins of pages that may connect beside the server's own; "*" is all.
        require_origin: whether clients without an origin, which are no browsers, are refused.
        loopback: whether the server listens for this machine alone.
        proxies: those whose word on a client's address is taken.
        handshakes: counts what has not come through this gate yet.
        admit: why a client gets no connection now, or None.
        authenticate: checks the tokens that handshakes show; None where none is needed.
        metrics: told what is refused.
        healthy: facts for /healthz; its "problem" is None while the process works.
        ready: facts for /readyz; its "problem" is None while messages are answered.
    """

    def __init__(
        self,
        *,
        allowed_origins: Collection[str],
        require_origin: bool,
        loopback: bool,
        proxies: Proxies,
        handshakes: Handshakes,
        admit: Callable[[str], Refusal | None],
        authenticate: Authenticate | None,
        metrics: Metrics,
        healthy: Health,
        ready: Health,
    ) -> None:
        self._allowed_origins = {origin.rstrip("/").lower() for origin in allowed_origins}
        self._require_origin = require_origin
        self._loopback = loopback
        self._proxies = proxies
        self.handshakes = handshakes
        self._admit = admit
        self._authenticate = authenticate
        self._metrics = metrics
        self._probes = {"/healthz": healthy, "/readyz": ready}
        self._warned = False

    async def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """For `websockets`: a response ends the request, None goes on with the handshake."""
        path = request.path.partition("?")[0]
        if path in self._probes:
            facts = self._probes[path]()
            broken = facts["problem"] is not None
            return _json(HTTPStatus.SERVICE_UNAVAILABLE if broken else HTTPStatus.OK, facts)
        if not any("websocket" in value.lower() for value in request.headers.get_all("Upgrade")):
            status = HTTPStatus.UPGRADE_REQUIRED if path == "/" else HTTPStatus.NOT_FOUND
            response = connection.respond(status, "This is a faqwire server: connect a websocket to /.\n")
            if status is HTTPStatus.UPGRADE_REQUIRED:
                response.headers["Upgrade"] = "websocket"
            return response
        if path != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "Connect the websocket to /.\n")
        if not self._origin_is_allowed(request.headers):
            self._refused("origin", self._client_of(connection, request.headers))
            return connection.respond(
                HTTPStatus.FORBIDDEN, "This page's origin may not connect; the operator lists it in allowed_origins.\n"
            )
        websocket = cast("Websocket", connection)  # as `server.listening` has them made
        websocket.client = self._client_of(connection, request.headers)
        refusal = self._admit(websocket.client)
        if refusal is not None:
            self._refused(refusal.cause, websocket.client)
            return _later(connection, refusal.status, refusal.reason, refusal.retry_after)
        return await self._check_tokens(websocket, tokens_of(request.headers))

    async def _check_tokens(self, websocket: Websocket, tokens: list[str]) -> Response | None:
        """Refuse a token that is not valid; a client that shows none may do so in its `hello`."""
        if self._authenticate is None or not tokens:
            return None
        try:
            verdict = len(tokens) == 1 and await self._authenticate(tokens[0])
        except Exception:  # noqa: BLE001 whatever checks tokens may have reasons of its own to fail
            _log.exception("a token could not be checked", connection=websocket.id.hex)
            return _later(websocket, HTTPStatus.SERVICE_UNAVAILABLE, "The token cannot be checked now.", RETRY_SECONDS)
        if verdict:
            websocket.authenticated, websocket.expires = True, expiry_of(verdict)
            return None
        self._refused("token", websocket.client)
        response = websocket.respond(
            HTTPStatus.UNAUTHORIZED, "The token is not valid; show one, and only one, that is.\n"
        )
        response.headers["WWW-Authenticate"] = 'Bearer realm="faqwire", error="invalid_token"'
        return response

    def _refused(self, reason: RefusalReason, client: str) -> None:
        self._metrics.refusals[reason].inc()
        _log.debug("handshake refused", address=client, reason=reason)

    def _client_of(self, connection: ServerConnection, headers: Headers) -> str:
        """What counts as one client: an address, or the network that it is in."""
        place = connection.remote_address
        peer = place[0] if isinstance(place, tuple) else None
        forwarded = headers.get_all("X-Forwarded-For")
        client = self._proxies.client_of(peer, forwarded)
        if forwarded and client == peer and is_loopback(client) and not self._warned:
            self._warned = True
            _log.warning(
                "X-Forwarded-For from this machine is not used: if a proxy runs here, list it in trusted_proxies"
            )
        return group_of(client)

    def _origin_is_allowed(self, headers: Headers) -> bool:
        origins = headers.get_all("Origin")
        if not origins:
            return not self._require_origin  # not a browser
        if len(origins) > 1:
            return False
        origin = origins[0].lower()
        if "*" in self._allowed_origins or origin in self._allowed_origins:
            return True
        hosts = headers.get_all("Host")
        scheme, _, place = origin.partition("://")
        own = len(hosts) == 1 and scheme in {"http", "https"} and place == hosts[0].lower() != ""
        # A name that somebody else's DNS leads to this machine would be the server's own by its Host header. On
        # loopback only this machine's own names count; a site whose proxy stands before the server is listed.
        name = place if place.endswith("]") else place.rpartition(":")[0] or place
        return own and (not self._loopback or name.strip("[]") in _LOOPBACK)


def select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; a client that offers none is taken at its word, one that offers others is refused."""
    del connection
    if not offered:
        return None
    if SUBPROTOCOL in offered:
        return Subprotocol(SUBPROTOCOL)
    raise NegotiationError(f"unsupported subprotocol; this server speaks {SUBPROTOCOL}")


def _later(connection: ServerConnection, status: HTTPStatus, reason: str, seconds: int) -> Response:
    response = connection.respond(status, f"{reason}\n")
    response.headers["Retry-After"] = str(seconds)
    return response


def _json(status: HTTPStatus, facts: dict[str, object]) -> Response:
    body = json.dumps(facts).encode() + b"\n"
    headers = Headers()
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    headers["Cache-Control"] = "no-store"
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)
