"""Guards `server.telemetry` and `server.metrics_page`: what is recorded is what Prometheus reads, and is documented."""

import asyncio
import http.client
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from server.errors import ListenError, SettingsError
from server.metrics_page import MetricsPage
from server.settings import read_settings
from server.telemetry import VARIABLE, Metrics, SupervisorMetrics
from tests.test_docs import read, table

HOST = "127.0.0.1"
# Name and labels of a series.
Series = tuple[str, frozenset[tuple[str, str]]]


def series(name: str, **labels: str) -> Series:
    """A series by its name, without the prefix, and its labels."""
    return f"faqwire_{name}", frozenset(labels.items())


def parse(text: str) -> dict[Series, float]:
    """The series of a page and their values."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def fetch(url: str) -> str:
    """What Prometheus would read."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc)
    try:
        connection.request("GET", place.path)
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        return response.read().decode()
    finally:
        connection.close()


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of a server that has not done anything."""
    return Metrics(CollectorRegistry())


@asynccontextmanager
async def served(metrics: Metrics, port: int = 0) -> AsyncIterator[MetricsPage]:
    """A page on a free port, or the one given."""
    page = MetricsPage(metrics.shown(), HOST, port)
    await page.start()
    try:
        yield page
    finally:
        await page.stop()


def shown(metrics: Metrics) -> dict[Series, float]:
    """What a page would show."""
    return parse(generate_latest(metrics.registry).decode())


def metric(name: str) -> str:
    """The metric that a series belongs to."""
    return re.sub("_(sum|count|bucket)$", "", name)


# What is recorded, and series that come of it.
RECORDED: dict[str, tuple[Callable[[Metrics], None], dict[Series, float]]] = {
    "decision": (lambda m: m.decisions["clarify"].inc(), {series("messages_total", decision="clarify"): 1}),
    "confirmation": (
        lambda m: m.confirmations["not_needed"].inc(),
        {series("confirmations_total", status="not_needed"): 1},
    ),
    "error": (lambda m: m.errors["overloaded"].inc(), {series("errors_total", code="overloaded"): 1}),
    "closing": (lambda m: m.closings["idle"].inc(), {series("closings_total", reason="idle"): 1}),
    "refusal": (lambda m: m.refusals["in_flight"].inc(), {series("refusals_total", reason="in_flight"): 1}),
    "reload": (lambda m: m.reloads["refused"].inc(), {series("reloads_total", result="refused"): 1}),
    "stage": (
        lambda m: m.stages["encode"].observe(0.003),
        {
            series("stage_seconds_sum", stage="encode"): 0.003,
            series("stage_seconds_bucket", stage="encode", le="0.002"): 0,
            series("stage_seconds_bucket", stage="encode", le="0.005"): 1,
        },
    ),
    "reply in time": (
        lambda m: m.replied("answer", 0.02, -0.08),
        {
            series("message_seconds_sum", type="answer"): 0.02,
            series("message_seconds_count", type="error"): 0,
            series("deadline_misses_total"): 0,
            series("lateness_seconds_count"): 0,
        },
    ),
    "reply that is late": (
        lambda m: m.replied("error", 0.102, 0.002),
        {
            series("message_seconds_bucket", type="error", le="0.1"): 0,
            series("message_seconds_bucket", type="error", le="0.15"): 1,
            series("deadline_misses_total"): 1,
            series("lateness_seconds_sum"): 0.002,
        },
    ),
    "candidates": (lambda m: m.candidates_confirmed.observe(4), {series("candidates_confirmed_sum"): 4}),
    "batch": (
        lambda m: m.models["bi-encoder"].ran(rows=4, tokens=24, padded=32, seconds=0.5, predicted=0.625),
        {
            series("batch_rows_sum", model="bi-encoder"): 4,
            series("batch_tokens_sum", model="bi-encoder"): 32,
            series("padding_ratio_sum", model="bi-encoder"): 0.25,
            series("batch_seconds_sum", model="bi-encoder"): 0.5,
            series("cost_error_ratio_sum", model="bi-encoder"): 0.25,
            series("batch_rows_count", model="cross-encoder"): 0,
        },
    ),
    "batch without padding, too quick for the clock": (
        lambda m: m.models["bi-encoder"].ran(rows=1, tokens=7, padded=7, seconds=0, predicted=0.01),
        {
            series("batch_rows_sum", model="bi-encoder"): 1,
            series("batch_tokens_sum", model="bi-encoder"): 7,
            series("padding_ratio_bucket", model="bi-encoder", le="0.0"): 1,
            series("batch_seconds_count", model="bi-encoder"): 1,
            series("cost_error_ratio_count", model="bi-encoder"): 0,
        },
    ),
    "queue": (
        lambda m: m.models["cross-encoder"].queue_length.set(7),
        {series("queue_length", model="cross-encoder"): 7},
    ),
    "wait": (
        lambda m: m.models["cross-encoder"].queue_seconds.observe(0.5),
        {series("queue_seconds_sum", model="cross-encoder"): 0.5},
    ),
    "dropped": (
        lambda m: m.models["bi-encoder"].dropped["cancelled"].inc(3),
        {series("dropped_total", model="bi-encoder", cause="cancelled"): 3},
    ),
    "shared": (lambda m: m.models["bi-encoder"].shared.inc(), {series("shared_total", model="bi-encoder"): 1}),
    "cache hit": (lambda m: m.cache_hits.inc(), {series("cache_requests_total", result="hit"): 1}),
    "cache miss": (lambda m: m.cache_misses.inc(), {series("cache_requests_total", result="miss"): 1}),
    "cache": (lambda m: m.cache_entries.set(9), {series("cache_entries"): 9}),
    "connection": (lambda m: m.connections.inc(), {series("connections"): 1}),
    "degraded": (lambda m: m.degradations["gpu_unused"].set(1), {series("degraded", reason="gpu_unused"): 1}),
    "journal": (
        lambda m: m.journal.records["feedback"]["stored"].inc(2),
        {series("journal_records_total", kind="feedback", fate="stored"): 2},
    ),
    "journal's queue": (lambda m: m.journal.queue_length.set(3), {series("journal_queue_length"): 3}),
    "journal's commit": (
        lambda m: m.journal.commit_seconds.observe(0.25),
        {series("journal_commit_seconds_sum"): 0.25},
    ),
    "journal that fails": (lambda m: m.journal.degraded.set(1), {series("degraded", reason="journal"): 1}),
    "suggestions": (lambda m: m.suggests.inc(), {series("suggests_total"): 1}),
    "feedback": (lambda m: m.feedback["unhelpful"].inc(), {series("feedback_total", opinion="unhelpful"): 1}),
    "another decision": (lambda m: m.decisions_changed.inc(), {series("decisions_changed_total"): 1}),
    "trace": (
        lambda m: m.tracing.traces["queue_full"].inc(),
        {series("traces_total", outcome="queue_full"): 1, series("traces_total", outcome="sent"): 0},
    ),
    "traces that are lost": (lambda m: m.tracing.degraded.set(1), {series("degraded", reason="tracing"): 1}),
    "index": (lambda m: m.index_in_use.switch("1"), {series("index_in_use", version="1"): 1}),
    "model": (
        lambda m: m.models["bi-encoder"].in_use.switch("CPUExecutionProvider", "int8"),
        {series("model_in_use", model="bi-encoder", provider="CPUExecutionProvider", variant="int8"): 1},
    ),
}


@pytest.mark.parametrize(("record", "expected"), RECORDED.values(), ids=RECORDED)
def test_what_is_recorded_is_shown(
    metrics: Metrics, record: Callable[[Metrics], None], expected: dict[Series, float]
) -> None:
    """Each thing that happens has its own name and labels, and changes no other metric."""
    record(metrics)
    values = shown(metrics)
    assert {name: values[name] for name in expected} == expected
    assert {metric(name) for (name, _), value in values.items() if value} <= {metric(name) for name, _ in expected}


def test_every_metric_is_recorded(metrics: Metrics, tmp_path: Path) -> None:
    """No metric of a server is left out above; a supervisor's have tests of their own."""
    recorded = {metric(name) for _, expected in RECORDED.values() for name, _ in expected}
    supervisors = {"faqwire_workers", "faqwire_worker_restarts_total"}
    assert {name for name, _, _ in families(metrics, tmp_path)} == recorded | supervisors


def test_series_are_there_from_the_start(metrics: Metrics) -> None:
    """What is counted is 0 before it first happens, so that the first time is a rise."""
    values = shown(metrics)
    assert values[series("errors_total", code="deadline_exceeded")] == 0
    assert values[series("dropped_total", model="cross-encoder", cause="closing")] == 0
    assert not any(values.values())


def test_another_index(metrics: Metrics) -> None:
    """One version is in use, whatever was before; versions come back, too."""
    for version in ("a", "b", "b", "c", "a"):
        metrics.index_in_use.switch(version)
    values = shown(metrics)
    assert [values[series("index_in_use", version=version)] for version in "abc"] == [1, 0, 0]


async def test_page(metrics: Metrics) -> None:
    """Prometheus reads over HTTP what was recorded; the next time, what is new."""
    async with served(metrics) as page:
        metrics.connections.inc(3)
        assert parse(await asyncio.to_thread(fetch, page.url)) == shown(metrics)
        metrics.connections.dec()
        assert parse(await asyncio.to_thread(fetch, page.url))[series("connections")] == 2


def families(metrics: Metrics, folder: Path) -> Iterator[tuple[str, str, dict[str, set[str]]]]:
    """Name, type and labels with their values of every metric, the supervisor's among them; the folder is empty."""
    metrics.models["bi-encoder"].in_use.switch("CPUExecutionProvider", "int8")
    metrics.models["cross-encoder"].in_use.switch("CPUExecutionProvider", "fp32")
    metrics.index_in_use.switch("1")
    for family in chain(metrics.registry.collect(), SupervisorMetrics(folder).registry.collect()):
        labels: dict[str, set[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    labels.setdefault(label, set()).add(value)
        yield f"{family.name}_total" if family.type == "counter" else family.name, family.type, labels


def test_metrics_are_all_documented(metrics: Metrics, tmp_path: Path) -> None:
    """metrics.md has every metric with its type, labels and unit, and nothing that is none."""
    documented = table(read("docs/metrics.md"), "metric")
    found = {name: (kind, labels) for name, kind, labels in families(metrics, tmp_path)}
    missing, extra = found.keys() - documented, documented.keys() - found.keys()
    assert not missing, f"docs/metrics.md has no row for {', '.join(sorted(missing))}"
    assert not extra, f"docs/metrics.md has rows for {', '.join(sorted(extra))}, which are no metrics"
    for name, (kind, labels) in found.items():
        _, said_kind, said_labels, unit, meaning = documented[name]
        place = f"docs/metrics.md: {name}"
        assert said_kind == kind, f"{place} is a {kind}, not a {said_kind}"
        assert set(said_labels.replace("`", "").split(", ")) - {""} == labels.keys(), f"{place}: wrong labels"
        assert unit, f"{place}: no unit"
        assert meaning, f"{place}: no meaning"
        for suffix in ("seconds", "ratio"):
            assert (unit == suffix) == name.endswith(f"_{suffix}"), f"{place}: the unit is wrong"


def test_labels_are_all_documented(metrics: Metrics, tmp_path: Path) -> None:
    """metrics.md has every value of the labels that have a fixed set of them, and no other."""
    page = read("docs/metrics.md")
    elsewhere = {"code", "decision", "provider", "variant", "version"}
    for name, _, labels in families(metrics, tmp_path):
        for label in labels.keys() - elsewhere:
            noun = name.removeprefix("faqwire_").removesuffix("_total").replace("_", " ")
            of = f" of {noun}" if label in {"reason", "result"} else ""
            documented = table(page, f"value of `{label}`{of}").keys()
            assert documented == labels[label], f"docs/metrics.md is wrong about {label} of {name}"


def test_several_in_one_process(metrics: Metrics) -> None:
    """Each server's metrics are its own."""
    other = Metrics(CollectorRegistry())
    other.connections.inc()
    assert other.registry.get_sample_value("faqwire_connections") == 1
    assert metrics.registry.get_sample_value("faqwire_connections") == 0


def test_threads(metrics: Metrics) -> None:
    """Nothing that several threads record at the same time is lost."""
    model = metrics.models["bi-encoder"]

    def record(_: int) -> None:
        for _ in range(500):
            metrics.decisions["answer"].inc()
            model.ran(rows=2, tokens=8, padded=8, seconds=0.5, predicted=0.5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(8)))
    value = metrics.registry.get_sample_value
    assert value("faqwire_messages_total", {"decision": "answer"}) == 4000
    assert value("faqwire_batch_rows_sum", {"model": "bi-encoder"}) == 8000


class Held(Collector):
    """A collector that gives nothing until it is let go."""

    def __init__(self) -> None:
        self.asked = Event()
        self.let_go = Event()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For Prometheus."""
        self.asked.set()
        self.let_go.wait()
        yield GaugeMetricFamily("held", "Whether this was held", value=1)


async def test_scrape_leaves_the_event_loop_alone(metrics: Metrics) -> None:
    """While a page is made, however long it takes, the event loop goes on and others are served."""
    held = Held()
    metrics.registry.register(held)
    async with served(metrics) as page, served(Metrics(CollectorRegistry())) as other:
        scraping = asyncio.create_task(asyncio.to_thread(fetch, page.url))
        await asyncio.to_thread(held.asked.wait)
        assert "faqwire_connections" in await asyncio.to_thread(fetch, other.url)
        assert not scraping.done()
        held.let_go.set()
        assert "held 1.0" in await scraping


async def test_stop(metrics: Metrics) -> None:
    """A page that was stopped has given its port back, and can be stopped again, or before it was started."""
    page = MetricsPage(metrics.shown(), HOST, 0)
    await page.stop()
    await page.start()
    url = page.url
    assert url.startswith(f"http://{HOST}:")
    assert url.endswith("/metrics")
    await page.stop()
    await page.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(fetch, url)
    with pytest.raises(RuntimeError, match="not served"):
        _ = page.url
    async with served(metrics, urlsplit(url).port or 0) as again:
        assert again.url == url


async def test_busy_port(metrics: Metrics) -> None:
    """A port that is taken is an error that names it and what to do."""
    async with served(metrics) as page:
        port = urlsplit(page.url).port
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port} cannot be listened on .* another metrics_port"):
            await MetricsPage(metrics.shown(), HOST, port or 0).start()


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a" * 64])
async def test_host_that_is_not_here(metrics: Metrics, host: str) -> None:
    """A host that is no address of this machine is named with its setting."""
    with pytest.raises(ListenError, match=rf"metrics_host '{host}' is not an address of this machine"):
        await MetricsPage(metrics.shown(), host, 0).start()


async def test_ipv6(metrics: Metrics) -> None:
    """An IPv6 address is listened on, and has its brackets in the URL."""
    page = MetricsPage(metrics.shown(), "::1", 0)
    await page.start()
    assert page.url.startswith("http://[::1]:")
    assert "faqwire_connections" in await asyncio.to_thread(fetch, page.url)
    await page.stop()


def test_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are on, for this machine alone, until they are turned off by that word in a file or the environment."""
    monkeypatch.chdir(tmp_path)
    settings = read_settings()
    assert (settings.metrics_host, settings.metrics_port) == (HOST, 9464)
    file = tmp_path / "my.toml"
    file.write_text('metrics_port = "off"\n', encoding="utf-8")
    assert read_settings(file).metrics_port is None
    monkeypatch.setenv("FAQWIRE_METRICS_PORT", "0")
    assert read_settings(file).metrics_port == 0
    monkeypatch.setenv("FAQWIRE_METRICS_PORT", "off")
    assert read_settings().metrics_port is None


@pytest.mark.parametrize(
    ("port", "says"), [("no", "valid integer, .* not 'no'"), ("65536", "less than .* not '65536'")]
)
def test_bad_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str, says: str) -> None:
    """Any other word, or a number that is no port, is refused in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAQWIRE_METRICS_PORT", port)
    with pytest.raises(SettingsError, match=rf"^environment: FAQWIRE_METRICS_PORT: input should be .*{says}$"):
        read_settings()


WRITER = """
from prometheus_client import CollectorRegistry
from server.telemetry import Metrics
metrics = Metrics(CollectorRegistry())
metrics.decisions["answer"].inc(2)
metrics.replied("answer", 0.25, 0.125)
metrics.connections.inc(3)
metrics.models["bi-encoder"].in_use.switch("CPUExecutionProvider", "int8")
metrics.index_in_use.switch("old")
metrics.index_in_use.switch("new")
"""
READER = """
import asyncio
import sys
from prometheus_client import CollectorRegistry
from server.metrics_page import MetricsPage
from server.telemetry import Metrics
async def main():
    page = MetricsPage(Metrics(CollectorRegistry()).shown(), "127.0.0.1", 0)
    await page.start()
    print(page.url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await page.stop()
asyncio.run(main())
"""


@contextmanager
def python(code: str, folder: Path | str) -> Iterator["subprocess.Popen[str]"]:
    """A process that keeps its metrics in a folder; it has to end without a warning."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], env={VARIABLE: str(folder)}, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        yield process
        assert (process.communicate(), process.returncode) == (("", ""), 0)


def test_several_processes(tmp_path: Path) -> None:
    """Where they share a folder, one process's page shows the sum of what all have recorded."""
    with python(WRITER, tmp_path), python(WRITER, tmp_path):
        pass
    with python(READER, tmp_path) as reader:
        assert reader.stdout is not None
        values = parse(fetch(reader.stdout.readline().strip()))
    expected = {
        series("messages_total", decision="answer"): 4,
        series("messages_total", decision="clarify"): 0,
        series("message_seconds_sum", type="answer"): 0.5,
        series("message_seconds_bucket", type="answer", le="0.2"): 0,
        series("message_seconds_bucket", type="answer", le="0.3"): 2,
        series("message_seconds_count", type="answer"): 2,
        series("deadline_misses_total"): 2,
        series("connections"): 6,
        series("model_in_use", model="bi-encoder", provider="CPUExecutionProvider", variant="int8"): 2,
        series("index_in_use", version="old"): 0,
        series("index_in_use", version="new"): 2,
        series("degraded", reason="gpu_unused"): 0,
    }
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize("place", ["missing", "file", ""])
def test_folder_that_is_none(tmp_path: Path, place: str) -> None:
    """A folder for several processes that is missing, or none, is refused in one sentence."""
    (tmp_path / "file").touch()
    folder = tmp_path / place if place else ""
    done = subprocess.run(
        [sys.executable, "-c", WRITER], env={VARIABLE: str(folder)}, capture_output=True, text=True, check=False
    )
    assert f"SettingsError: environment: {VARIABLE} is '{folder}', and not a folder" in done.stderr
