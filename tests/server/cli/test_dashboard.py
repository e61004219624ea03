"""Guards deploy/grafana with a real Prometheus that reads a real server; skipped where Prometheus is not installed."""

import http.client
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from websockets.sync.client import connect

from deploy.grafana.dashboard import chosen
from deploy.grafana.panels import ROWS
from tests.server.cli.site import Process, Site
from tests.server.cli.test_serve import address, end
from tests.server.raw import UNSEEN
from tests.server.test_dashboard import asked

HOST = "127.0.0.1"
# Panels that show more than nothing after the load below.
LIVELY = {
    *("Messages that ended", "Open connections", "Suggestions and feedback", "Versions of the index that answer"),
    *("What the models run on", "Answers, by quantile", "Median, by stage", "99th percentile, by stage"),
    *("Mean time of an answer, by stage", "Decisions", "Confirmations", "Errors", "Requests in a batch"),
    *("Tokens in a batch", "Duration of a batch, 99th percentile", "Hit rate", "Messages looked up", "Answers held"),
    *("Records", "Writing of a group"),
}
pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")


class Relay(ThreadingHTTPServer):
    """Stands between Prometheus and a metrics page, and counts the scrapes that have begun."""

    daemon_threads = True

    def __init__(self, page: str) -> None:
        super().__init__((HOST, 0), _Handler)
        self.page = urlsplit(page)
        self.begun = threading.Semaphore(0)

    def scraped(self) -> None:
        """Wait until a scrape that begins from now on is in Prometheus: the one after it has begun."""
        while self.begun.acquire(blocking=False):
            pass
        for _ in range(3):  # the first may have been under way
            assert self.begun.acquire(timeout=60)


class _Handler(BaseHTTPRequestHandler):
    server: Relay

    def do_GET(self) -> None:
        self.server.begun.release()
        connection = http.client.HTTPConnection(self.server.page.netloc)
        connection.request("GET", self.server.page.path, headers={"Accept": self.headers["Accept"]})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        self.send_response(response.status)
        self.send_header("Content-Type", response.headers["Content-Type"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def relaying(page: str) -> Iterator[Relay]:
    """A relay under way."""
    relay = Relay(page)
    thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield relay
    finally:
        relay.shutdown()
        thread.join()
        relay.server_close()


@contextmanager
def prometheus(folder: Path, target: str, port: int) -> Iterator[str]:
    """A real Prometheus that reads the target every second, for which it has as long; its address."""
    config = {"scrape_configs": [{"job_name": "faqwire", "static_configs": [{"targets": [target]}]}]}
    file = folder / "prometheus.yml"  # JSON is YAML
    file.write_text(json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, **config}))
    place = f"{HOST}:{port}"
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with subprocess.Popen(
        [*command, f"--web.listen-address={place}"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "Server is ready to receive web requests" in line:
                    break
            else:
                pytest.fail("".join(said))
            yield place
        finally:
            process.terminate()
            process.communicate()


def evaluate(place: str, query: str) -> dict[str, Any]:
    """What Prometheus says to a query now."""
    connection = http.client.HTTPConnection(place)
    try:
        connection.request("GET", "/api/v1/query?" + urlencode({"query": query}))
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer


def load(client: Any) -> None:
    """A bit of everything that a visitor can do."""
    for number in range(60):
        client.send(json.dumps({"type": "ask", "id": f"{number}", "text": f"{UNSEEN}, number {number % 40}"}))
        reply = json.loads(client.recv())
        assert reply["type"] == "answer", reply
    client.send(json.dumps({"type": "ask", "id": "empty", "text": ""}))
    assert json.loads(client.recv())["type"] == "error"
    client.send(json.dumps({"type": "suggest", "id": "s", "text": "where"}))
    assert json.loads(client.recv())["type"] == "suggestions"
    client.send(json.dumps({"type": "feedback", "id": "f", "ref": reply["ref"], "helpful": True}))
    assert json.loads(client.recv())["type"] == "accepted"


def metrics_page(process: Process) -> str:
    """Where the metrics of a server are, as its log says."""
    assert process.stderr is not None
    for line in process.stderr:
        said = json.loads(line)
        if said["event"] == "supervising":
            return str(said["metrics"])
    raise AssertionError("there is no page")


def test_a_real_prometheus_answers_every_query(site: Site, tmp_path: Path, unused_tcp_port: int) -> None:
    """It evaluates every query of the dashboard and of the documentation, and each has a result, from all workers."""
    (site.folder / "faqwire.toml").write_text('journal = "journal.db"\n', encoding="utf-8")
    with site.start("serve", "--port", "0", "--workers", "2", "--budget-ms", "10000") as process:
        url = address(process)
        with (
            relaying(metrics_page(process)) as relay,
            prometheus(tmp_path, f"{HOST}:{relay.server_port}", unused_tcp_port) as place,
            connect(url, compression=None, proxy=None) as client,
        ):
            client.recv()
            relay.scraped()
            load(client)
            relay.scraped()
            for row in ROWS:
                for panel in row.panels:
                    biggest = 0.0
                    for query, _ in panel.queries:
                        asks = chosen(query).replace("$__rate_interval", "1m").replace("$job", ".*")
                        answer = evaluate(place, asks.replace("$instance", ".*"))
                        assert (answer["status"], answer.get("warnings")) == ("success", None), answer
                        values = [float(series["value"][1]) for series in answer["data"]["result"]]
                        assert values, f"{panel.title}: {query} has no result"
                        biggest = max([biggest, *(value for value in values if value == value)])  # noqa: PLR0124 no NaN
                    assert biggest > 0 or panel.title not in LIVELY, f"{panel.title} shows nothing"
            assert {panel.title for row in ROWS for panel in row.panels} >= LIVELY
            for query in asked():
                assert evaluate(place, query)["status"] == "success", query
        code, _, err = end(process, signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in err
