"""What the port serves besides websockets, and who may open one: health, and the origin check."""

import json
from collections.abc import Callable, Collection
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

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
        loopback: whether the server listens for this machine alone.
        full: why no further connection is taken now, or None.
        healthy: facts for /healthz; its "problem" is None while the process works.
        ready: facts for /readyz; its "problem" is None while messages are answered.
    """

    def __init__(
        self,
        *,
        allowed_origins: Collection[str],
        loopback: bool,
        full: Callable[[], str | None],
        healthy: Health,
        ready: Health,
    ) -> None:
        self._allowed_origins = {origin.rstrip("/").lower() for origin in allowed_origins}
        self._full = full
        self._loopback = loopback
        self._probes = {"/healthz": healthy, "/readyz": ready}

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
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
            return connection.respond(
                HTTPStatus.FORBIDDEN, "This page's origin may not connect; the operator lists it in allowed_origins.\n"
            )
        reason = self._full()
        if reason is not None:
            response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n")
            response.headers["Retry-After"] = "5"
            return response
        return None

    def _origin_is_allowed(self, headers: Headers) -> bool:
        origins = headers.get_all("Origin")
        if not origins:
            return True  # not a browser
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


def _json(status: HTTPStatus, facts: dict[str, object]) -> Response:
    body = json.dumps(facts).encode() + b"\n"
    headers = Headers()
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    headers["Cache-Control"] = "no-store"
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)
