"""Guards `server.tracing` and `server.spans`: what a real collector gets, and that it never costs a reply."""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client import CollectorRegistry

from export.bundle import Bundle
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.session import CPU
from export.runtime.session import Device as Hardware
from server import spans, tracing
from server.ended import Ended
from server.engine import Engine
from server.errors import SettingsError
from server.messages import Answer, Cancelled
from server.settings import read_settings
from server.telemetry import Metrics
from server.tracing import Tracing
from tests.intents.small import confirming
from tests.server.collector import HOST, Collector, collecting, facts
from tests.server.conftest import Events, ServerFactory
from tests.server.fakes import Clock, Device, HeldEngine, sample
from tests.server.raw import UNSEEN, dial
from tests.test_docs import read, table

STAGES = ("tokenize", "queue", "encode", "search", "confirm_queue", "confirm", "decide")


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    with collecting() as collector:
        yield collector


@pytest.fixture
def confirmed(engine: Engine, cross_bundle: Bundle) -> HeldEngine:
    """The shop's engine with a small cross-encoder, which confirms every message that it has to encode."""
    sessions = engine.encoder.sessions
    cross_encoder = CrossEncoder(cross_bundle, "fp32", Hardware(CPU), max_tokens=32, sessions=sessions)
    return HeldEngine(engine.encoder, confirming(engine.index), engine.search, cross_encoder)


def asked(request_id: str = "1") -> Ended:
    """An ask that was cancelled at once."""
    return Ended("c", Cancelled(request_id), 1.0, 2.0, 2.0, 3.0)


class Kept:
    """Tracing to a collector, with metrics of its own."""

    def __init__(self, url: str, share: float = 1.0) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.tracing = Tracing(
            url, share=share, model="m", variant="int8", clock=time.monotonic, metrics=self.metrics.tracing
        )

    def count(self, outcome: str) -> float | None:
        """How many traces ended so."""
        return sample(self.metrics, "traces_total", outcome=outcome)

    def take(self, number: int) -> list[str | None]:
        """Show it so many asks."""
        return [self.tracing.take(asked(f"{one}"), wanted=False) for one in range(number)]


async def keep(url: str, share: float = 1.0) -> Kept:
    """Open tracing, away from the event loop: it reads files."""
    return await asyncio.to_thread(Kept, url, share)


def milliseconds(span: Span) -> float:
    """How long a span is."""
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6


async def test_spans_are_where_the_time_went(
    start_server: ServerFactory, confirmed: HeldEngine, collector: Collector
) -> None:
    """An ask is a span, with one inside for each stage: as long as the answer says, in order, and at the right time."""
    before = time.time_ns()
    async with (
        start_server(engine=confirmed, trace_endpoint=collector.url, trace_share=1.0) as server,
        dial(server) as client,
    ):
        answer = await client.reply_to("q-1", f"{UNSEEN} xylophone")
        await client.flush()
        [connection] = server.reception.connections
        encoder = server._engine.encoder
    after = time.time_ns()
    body = collector.bodies.get()
    collector.bodies.put(body)
    [trace] = collector.traces()
    root = trace.pop("ask")
    assert not root.parent_span_id
    assert root.kind == Span.SPAN_KIND_SERVER
    assert root.status.code == Status.STATUS_CODE_UNSET
    assert before <= root.start_time_unix_nano < root.end_time_unix_nano <= after
    assert list(trace) == [*STAGES, "write"]
    assert {span.parent_span_id for span in trace.values()} == {root.span_id}
    assert len({root.span_id, *(span.span_id for span in trace.values())}) == 9
    for stage in STAGES:
        assert milliseconds(trace[stage]) == pytest.approx(answer["timing_ms"][stage], abs=0.002), stage
    starts = [span.start_time_unix_nano for span in trace.values()]
    assert starts == sorted(starts)
    last = root.start_time_unix_nano
    for span in trace.values():
        assert span.start_time_unix_nano >= last - 1000, f"{span.name} begins before the stage before it ends"
        last = span.end_time_unix_nano
    assert last == pytest.approx(root.end_time_unix_nano, abs=1000)
    made = trace["write"].start_time_unix_nano - root.start_time_unix_nano
    assert made / 1e6 >= answer["timing_ms"]["total"] - 0.002
    assert facts(root) == {
        "faqwire.connection": connection._id,
        "faqwire.id": "q-1",
        "faqwire.outcome": "answer",
        "faqwire.budget_ms": 10_000,
        "faqwire.slow": False,
        "faqwire.waiting": 0,
        "faqwire.ref": answer["ref"],
        "faqwire.decision": answer["decision"],
        "faqwire.confirmation": answer["confirmation"],
        "faqwire.index": answer["index"],
        "faqwire.model": encoder.bundle.manifest.source.model,
        "faqwire.variant": encoder.variant,
    }
    assert b"xylophone" not in body
    assert answer["text"].encode() not in body


async def test_a_trace_says_who_sends_it(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans belong to the service "faqwire", or to what OpenTelemetry's own variables call it."""
    for name, expected in ((None, "faqwire"), ("shop-chat", "shop-chat")):
        if name:
            monkeypatch.setenv("OTEL_SERVICE_NAME", name)
        kept = await keep(collector.url)
        kept.take(1)
        await asyncio.to_thread(kept.tracing.close, 30)
        [request] = collector.taken()
        resource = facts(request.resource_spans[0].resource)  # it has attributes too
        assert (resource["service.name"], resource["telemetry.sdk.name"]) == (expected, "opentelemetry")


async def test_an_answer_without_the_models(start_server: ServerFactory, collector: Collector) -> None:
    """What needs no model has the span of its reply and no stages."""
    async with start_server(trace_endpoint=collector.url, trace_share=1.0) as server, dial(server) as client:
        await client.reply_to("1", "Where is my order?")
        await client.reply_to("2", "")
        await client.flush()
    first, second = collector.traces()
    assert list(first) == list(second) == ["ask", "write"]
    assert facts(first["ask"])["faqwire.confirmation"] == "not_needed"
    assert facts(second["ask"])["error.type"] == "invalid_text"
    assert second["ask"].status.code == Status.STATUS_CODE_UNSET, "that is the client's fault"


async def test_who_is_given_up_has_spans_as_far_as_it_came(
    start_held: ServerFactory, device: Device, collector: Collector, clock: Clock
) -> None:
    """A message that ends at its deadline shows where it was then: in the model, or still waiting for it."""
    async with start_held(trace_endpoint=collector.url, trace_share=1.0, sessions=2) as server, dial(server) as client:
        for lane in range(server._engine.encoder.sessions):
            await client.ask(f"running {lane}", f"{UNSEEN} {lane}", budget_ms=150)
            await device.arrived.get()
        await client.ask("waiting", f"{UNSEEN} now", budget_ms=150)
        await client.ask("cancelled", f"{UNSEEN} too", budget_ms=9000)
        await client.send(type="cancel", id="cancelled")
        assert (await client.receive())["type"] == "cancelled"
        clock.now += 0.15
        for _ in range(server._engine.encoder.sessions + 1):
            assert (await client.receive())["code"] == "deadline_exceeded"
        device.let_go()
        await client.flush()
    traces = {facts(trace["ask"])["faqwire.id"]: trace for trace in collector.traces()}
    running, waiting, cancelled = (traces[name] for name in ("running 0", "waiting", "cancelled"))
    assert list(running) == ["ask", "tokenize", "queue", "encode", "write"]
    assert list(waiting) == list(cancelled) == ["ask", "tokenize", "queue", "write"]
    for trace, stage in ((running, "encode"), (waiting, "queue"), (cancelled, "queue")):
        assert trace[stage].end_time_unix_nano == pytest.approx(trace["write"].start_time_unix_nano, abs=1000)
    # It waited until there was too little time left for what comes after the model: a fifth of its budget at the most.
    assert waiting["queue"].end_time_unix_nano - waiting["ask"].start_time_unix_nano >= 0.8 * 150e6 - 1000
    assert facts(waiting["ask"])["error.type"] == "deadline_exceeded"
    assert waiting["ask"].status.code == Status.STATUS_CODE_ERROR
    assert facts(cancelled["ask"])["faqwire.outcome"] == "cancelled"


async def test_a_confirmation_that_was_given_up(
    start_server: ServerFactory, confirmed: HeldEngine, device: Device, collector: Collector, clock: Clock
) -> None:
    """The cross-encoder's part shows, although its result came too late to count."""
    engine = replace(confirmed, confirming=device)
    async with (
        start_server(engine=engine, budget_ms=1000, trace_endpoint=collector.url, trace_share=1.0) as server,
        dial(server) as client,
    ):
        await client.ask("1", UNSEEN)
        await device.arrived.get()
        clock.now += 1
        answer = await client.receive()
        assert answer["confirmation"] == "timed_out"
        assert "confirm" not in answer["timing_ms"]
        device.let_go()
        await client.flush()
    [trace] = collector.traces()
    assert [stage for stage in trace if stage != "confirm"] == ["ask", *STAGES[:5], "decide", "write"]
    last = trace.get("confirm", trace["confirm_queue"])  # as far as all of the candidates have come
    assert last.end_time_unix_nano == pytest.approx(trace["decide"].start_time_unix_nano, abs=1000)
    assert last.end_time_unix_nano - trace["confirm_queue"].start_time_unix_nano > 0


async def test_slow_ones_are_traced(
    start_held: ServerFactory, device: Device, collector: Collector, logs: Events, clock: Clock
) -> None:
    """A message that is logged as slow has a trace, whatever the share, and the log names it."""
    async with (
        start_held(trace_endpoint=collector.url, trace_share=0.0, slow_ms=300) as server,
        dial(server) as client,
    ):
        await client.ask("quick", "Where is my order?")
        await client.receive()
        await client.ask("slow", UNSEEN)
        await device.arrived.get()
        clock.now += 0.5
        device.let_go()
        await client.receive()
        await client.flush()
    [trace] = collector.traces()
    [line] = [event for event in logs if event["event"] == "slow message"]
    assert (facts(trace["ask"])["faqwire.id"], facts(trace["ask"])["faqwire.slow"]) == ("slow", True)
    assert line["trace"] == trace["ask"].trace_id.hex()


async def test_share(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of asks is drawn by lot; of none nothing is sent."""
    draws = iter([0.1, 0.3, 0.25, 0.0, 0.9999] * 2)
    monkeypatch.setattr("server.tracing.random.random", lambda: next(draws))
    kept = await keep(collector.url, share=0.25)
    assert [trace is not None for trace in kept.take(5)] == [True, False, False, True, False]
    await asyncio.to_thread(kept.tracing.close, 30)
    assert len(collector.traces()) == kept.count("sent") == 2
    none = await keep(collector.url, share=0.0)
    assert none.take(5) == [None] * 5
    await asyncio.to_thread(none.tracing.close, 30)
    assert not collector.taken()


async def test_a_collector_that_is_down_costs_no_reply(
    start_server: ServerFactory, logs: Events, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages are answered; that traces are lost is said once, and once that they are sent again; metrics tell."""
    monkeypatch.setattr(spans, "EXPORT_SECONDS", 1.5)  # time for one more try
    monkeypatch.setattr(tracing, "LINGER_SECONDS", 0.0)
    with collecting() as collector:
        port = collector.server_port
    async with (
        start_server(trace_endpoint=f"http://{HOST}:{port}", trace_share=1.0) as server,
        dial(server) as client,
    ):
        metrics = server._metrics
        sent = metrics.tracing.traces["sent"]
        lost = asyncio.Event()
        loop, worsen, mend = asyncio.get_running_loop(), Tracing._worsen, Tracing._mend
        again = asyncio.Event()

        def worsens(self: Tracing, reason: str) -> None:
            worsen(self, reason)
            loop.call_soon_threadsafe(lost.set)

        def mends(self: Tracing) -> None:
            mend(self)
            loop.call_soon_threadsafe(again.set)

        monkeypatch.setattr(Tracing, "_worsen", worsens)
        monkeypatch.setattr(Tracing, "_mend", mends)
        for number in range(2):
            lost.clear()
            assert (await client.reply_to(f"{number}", UNSEEN))["type"] == "answer"
            await lost.wait()
        assert sample(metrics, "traces_total", outcome="failed") == 2
        assert sample(metrics, "degraded", reason="tracing") == 1
        with collecting(port) as collector:
            await client.reply_to("9", UNSEEN)
            await again.wait()
            assert [facts(trace["ask"])["faqwire.id"] for trace in collector.traces()] == ["9"]
            assert collector.paths == ["/v1/traces"], "a collector's own path is known"
        assert sent._value.get() == 1
        assert sample(metrics, "degraded", reason="tracing") == 0
    told = [event for event in logs if "traces" in event["event"]]
    assert [(event["event"], event["log_level"]) for event in told] == [
        ("traces are lost; messages are answered all the same", "error"),
        ("traces are sent again", "warning"),
    ]
    assert "refused" in told[0]["reason"].lower()
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_a_collector_that_refuses(collector: Collector, logs: Events) -> None:
    """What the collector does not take is lost at once, and the log has its answer."""
    collector.status = 401
    kept = await keep(collector.url)
    kept.take(2)
    await asyncio.to_thread(kept.tracing.close, 30)
    assert kept.count("failed") == 2
    [event] = logs
    assert "401" in event["reason"]


async def test_a_collector_that_is_slow(collector: Collector, monkeypatch: pytest.MonkeyPatch, logs: Events) -> None:
    """While the collector takes its time no more than so many wait; the others are lost, counted, and said to be."""
    monkeypatch.setattr(tracing, "ROOM", 3)
    monkeypatch.setattr(tracing, "GROUP", 1)
    collector.open.clear()
    kept = await keep(collector.url)
    kept.take(1)
    await asyncio.to_thread(collector.arrived.wait)
    assert [trace is not None for trace in kept.take(5)] == [True, True, True, False, False]
    assert kept.count("queue_full") == 2
    collector.open.set()
    await asyncio.to_thread(kept.tracing.close, 30)
    assert kept.count("sent") == 4
    assert logs[0]["event"] == "traces are lost; messages are answered all the same"
    assert "trace_share" in logs[0]["reason"]


async def test_a_collector_that_hangs_holds_up_no_stop(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, logs: Events
) -> None:
    """A server that stops waits for traces for so long and no longer, and says how many it has lost."""
    monkeypatch.setattr(tracing, "GROUP", 1)
    monkeypatch.setattr(tracing, "HURRY_SECONDS", 0.01)
    collector.open.clear()
    kept = await keep(collector.url)
    kept.take(4)
    await asyncio.to_thread(collector.arrived.wait)
    await asyncio.to_thread(kept.tracing.close, 0.01)
    assert kept.count("closing") == 3
    assert kept.take(1) == [None]
    assert kept.count("closing") == 4
    assert [(event["event"], event["waiting"]) for event in logs] == [
        ("traces are lost, for the collector does not take them", 3)
    ]
    collector.open.set()
    await asyncio.to_thread(kept.tracing._thread.join)
    assert (kept.count("sent") or 0) + (kept.count("failed") or 0) == 1


async def test_what_cannot_be_sent_ends_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, logs: Events
) -> None:
    """An exception that nobody thought of costs its own group of traces, and the next one is sent."""
    monkeypatch.setattr(tracing, "GROUP", 1)
    kept = await keep(collector.url)
    broken = Ended("c", None, 1.0, 2.0, 2.0, 3.0)  # type: ignore[arg-type]  # so that it fails
    kept.tracing.take(broken, wanted=True)
    kept.take(1)
    await asyncio.to_thread(kept.tracing.close, 30)
    assert (kept.count("failed"), kept.count("sent")) == (1, 1)
    assert "AttributeError" in logs[0]["reason"]


async def test_headers_are_the_environment_s_and_secret(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, logs: Events
) -> None:
    """OpenTelemetry's own variable gives headers, such as a key; they are not logged, not even where they are wrong."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret-1,no header secret-2")
    with caplog.at_level(logging.DEBUG):
        kept = await keep(collector.url)
        kept.take(1)
        await asyncio.to_thread(kept.tracing.close, 30)
    assert collector.headers[0]["x-key"] == "secret-1"
    assert "secret-" not in caplog.text + str(logs)


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is not installed, a server that shall trace does not start, and says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"trace_endpoint is set, .*pip install .*\[tracing\]"):
        Kept("http://127.0.0.1:1/")


async def test_a_server_without_it_does_not_start(start_server: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves nothing behind, its metrics page's port included."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match="OpenTelemetry is not installed"):
        async with start_server(trace_endpoint="http://127.0.0.1:1/", metrics_port=0):
            pytest.fail("it has started")


OFF = """
import asyncio, sys
from prometheus_client import CollectorRegistry
from server.settings import read_settings
from server.telemetry import Metrics
from server.watching import Watch
import server.app
async def main():
    watch = await Watch.open(read_settings(), None, Metrics(CollectorRegistry()).tracing)
    await watch.close()
asyncio.run(main())
print(*sys.modules)
"""


def test_off_imports_nothing(tmp_path: Path) -> None:
    """A server that does not trace, the default, imports nothing of OpenTelemetry's, and has no thread for it."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", OFF],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "server" in imported
    assert not imported & {"opentelemetry", "requests", "google"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("127.0.0.1:4318", "begins with http:// or https://"),
        ("grpc://collector:4317", "begins with http:// or https://"),
        ("http://", "begins with http:// or https://"),
        ("http://[::1", "[Ii]nvalid IPv6 URL"),
        ("http://me:secret@collector/v1/traces", "OTEL_EXPORTER_OTLP_HEADERS takes secrets"),
        ("https://collector/v1/traces?key=secret", "OTEL_EXPORTER_OTLP_HEADERS takes secrets"),
    ],
)
def test_endpoints_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    """An endpoint that nothing can be sent to, or that has a secret in it, is refused in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAQWIRE_TRACE_ENDPOINT", url)
    with pytest.raises(SettingsError, match=rf"^environment: FAQWIRE_TRACE_ENDPOINT: .*{says}.*$") as caught:
        read_settings()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("FAQWIRE_TRACE_ENDPOINT", "off")
    assert read_settings().trace_endpoint is None


def test_attributes_are_all_documented() -> None:
    """traces.md has every attribute that a span may have, and no other."""
    kept = spans.Kept(asked(), 1, slow=False, offset=0)
    found: set[str] = {"faqwire.model", "faqwire.variant", "faqwire.waiting", "error.type", *spans.facts_of(kept)}
    answer = Answer(*[None] * len(Answer.__struct_fields__))  # type: ignore[arg-type]  # its names are what counts
    found |= spans.facts_of(spans.Kept(Ended("c", answer, 0.0, 0.0, 0.0, 0.0), 1, slow=False, offset=0)).keys()
    assert table(read("docs/traces.md"), "attribute").keys() == found
    assert table(read("docs/traces.md"), "span").keys() == {"ask", *STAGES, "write"}
