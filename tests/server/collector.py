"""A collector of traces: takes what OTLP sends over HTTP, as a real one does, and does with it what the test says."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

HOST = "127.0.0.1"


class Collector(ThreadingHTTPServer):
    """Listens on a free port, or the one given.

    Attributes:
        bodies: what was taken, as bytes.
        headers: of each request.
        paths: likewise.
        status: what requests are answered with; only 200 takes them.
        open: answers wait until it is set.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.bodies: SimpleQueue[bytes] = SimpleQueue()
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.arrived = threading.Event()
        self.status = 200
        self.open = threading.Event()
        self.open.set()

    @property
    def url(self) -> str:
        """Where traces are sent to."""
        return f"http://{HOST}:{self.server_port}/v1/traces"

    def taken(self) -> list[ExportTraceServiceRequest]:
        """What has been taken since this was asked last."""
        return [ExportTraceServiceRequest.FromString(self.bodies.get()) for _ in range(self.bodies.qsize())]

    def traces(self) -> list[dict[str, Span]]:
        """The same as spans by their names, for each ask."""
        found: dict[bytes, dict[str, Span]] = {}
        for request in self.taken():
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        found.setdefault(span.trace_id, {})[span.name] = span
        return list(found.values())


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.headers.append(dict(self.headers))
        self.server.paths.append(self.path)
        self.server.arrived.set()
        self.server.open.wait()
        if self.server.status == 200:
            self.server.bodies.put(body)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """A collector under way."""
    collector = Collector(port)
    thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        collector.open.set()
        collector.shutdown()
        thread.join()
        collector.server_close()


def facts(span: Span) -> dict[str, Any]:
    """A span's attributes."""
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}
