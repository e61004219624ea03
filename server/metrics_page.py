"""The page that Prometheus reads metrics from, on a port of its own."""

import asyncio
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from server.http import url_of
from server.listening import listen_error


class MetricsPage:
    """Serves metrics over HTTP, in threads beside the event loop.

    Args:
        registry: what is shown.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._registry = registry
        self._host = host
        self._port = port
        self._running: tuple[WSGIServer, Thread] | None = None

    @property
    def url(self) -> str:
        """The page's address.

        Raises:
            RuntimeError: the page is not served, or no more.
        """
        if self._running is None:
            raise RuntimeError("the metrics are not served")
        host, port, *_ = self._running[0].socket.getsockname()
        return "http" + url_of(host, port).removeprefix("ws") + "metrics"

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ListenError: the address cannot be had.
        """
        try:
            # Names are looked up on the way, which may take its time.
            self._running = await asyncio.to_thread(start_http_server, self._port, self._host, self._registry)
        except (OSError, UnicodeError) as exc:
            raise listen_error(
                exc, "metrics_host", self._host, self._port, 'another metrics_port (0 picks a free one, "off" is none)'
            ) from exc

    async def stop(self) -> None:
        """Stop listening; does nothing where nothing listens."""
        running, self._running = self._running, None
        if running is not None:
            await asyncio.to_thread(_stop, *running)


def _stop(server: WSGIServer, thread: Thread) -> None:
    server.shutdown()  # waits until the thread looks up, for half a second at the most
    server.server_close()
    thread.join()
