"""Guards `server.app` as an operator sees it: what a server says of itself, and the whole cascade over a socket."""

from dataclasses import replace

import pytest

from export.bundle import Bundle
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.session import CPU
from export.runtime.session import Device as Hardware
from server.engine import Engine
from tests.intents.small import confirming
from tests.server.conftest import Events, ServerFactory
from tests.server.fakes import Clock, Device, HeldEngine
from tests.server.raw import UNSEEN, dial, get
from tests.server.test_counting import scraped


@pytest.fixture
def confirmed(engine: Engine, cross_bundle: Bundle) -> HeldEngine:
    """The shop's engine with a small cross-encoder, which confirms every message that it has to encode."""
    sessions = engine.encoder.sessions
    cross_encoder = CrossEncoder(cross_bundle, "fp32", Hardware(CPU), max_tokens=32, sessions=sessions)
    return HeldEngine(engine.encoder, confirming(engine.index), engine.search, cross_encoder)


def name_of(engine: Engine) -> str:
    """The name of its cross-encoder."""
    assert engine.cross_encoder is not None
    return engine.cross_encoder.bundle.manifest.source.model


def warnings(logs: Events) -> list[str]:
    """What an operator should look at."""
    return [str(event["event"]) for event in logs if event["log_level"] == "warning"]


async def test_the_cascade_over_a_socket(start_server: ServerFactory, confirmed: HeldEngine, logs: Events) -> None:
    """A message that both models have read is answered with what came of it, and where its time went."""
    async with start_server(engine=confirmed, metrics_port=0) as server, dial(server) as client:
        assert (await get(server, "/readyz")).facts["cross_encoder"] == name_of(confirmed)
        await client.ask("1", UNSEEN)
        answer = await client.receive()
        await client.flush()
        assert answer["confirmation"] in {"confirmed", "overruled", "rejected"}
        stages = {"tokenize", "queue", "encode", "search", "confirm_queue", "confirm", "decide"}
        assert set(answer["timing_ms"]) == {"total"} | stages
        value = await scraped(server)
        assert value("confirmations_total", status=answer["confirmation"]) == 1
        assert value("candidates_confirmed_sum") == 4
        assert value("batch_rows_sum", model="cross-encoder") == 4
        for stage in stages:
            assert value("stage_seconds_count", stage=stage) == 1, stage
        assert value("model_in_use", model="cross-encoder", provider="CPUExecutionProvider", variant="fp32") == 1
        assert value("degraded", reason="unconfirmed") == 0
    assert not warnings(logs)
    [listening] = [event for event in logs if event["event"] == "listening"]
    assert listening["cross_encoder"] == name_of(confirmed)
    assert listening["metrics"].endswith("/metrics")


async def test_the_reply_is_there_while_the_cross_encoder_hangs(
    start_server: ServerFactory, confirmed: HeldEngine, device: Device, clock: Clock
) -> None:
    """Whatever the cross-encoder does, the bi-encoder's decision is sent within the budget."""
    async with (
        start_server(engine=replace(confirmed, confirming=device), budget_ms=1000, metrics_port=0) as server,
        dial(server) as client,
    ):
        await client.ask("1", UNSEEN)
        batch = await device.arrived.get()
        clock.now += 1
        answer = await client.receive()
        assert not batch.ended
        assert (answer["type"], answer["confirmation"]) == ("answer", "timed_out")
        value = await scraped(server)
        assert value("confirmations_total", status="timed_out") == 1
        device.let_go()


async def test_an_index_that_cannot_be_confirmed(
    start_server: ServerFactory, confirmed: HeldEngine, logs: Events
) -> None:
    """An index that was built with a cross-encoder and is served without one works worse than it could, and says so."""
    engine = replace(confirmed, cross_encoder=None)
    async with start_server(engine=engine, metrics_port=0) as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        assert (await client.receive())["confirmation"] == "disabled"
        assert (await scraped(server))("degraded", reason="unconfirmed") == 1
    assert "nothing is confirmed" in warnings(logs)


async def test_a_gpu_that_is_not_used(
    start_server: ServerFactory, engine: Engine, logs: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that runs on the CPU although there is a GPU says so to everybody who asks."""
    monkeypatch.setattr(engine.encoder, "device", replace(engine.encoder.device, degraded="the driver is too old"))
    async with start_server(metrics_port=0) as server:
        assert (await get(server, "/readyz")).facts["degraded"] == "the driver is too old"
        assert (await scraped(server))("degraded", reason="gpu_unused") == 1
    assert [warning for warning in warnings(logs) if "GPU" in warning]


async def test_without_metrics(start_server: ServerFactory) -> None:
    """Where metrics are off there is no page."""
    async with start_server() as server:
        assert server.metrics_url is None


async def test_metrics_end_with_the_server(start_server: ServerFactory) -> None:
    """The page is there as long as the server, and its port is free again afterwards."""
    async with start_server(metrics_port=0) as server:
        url = server.metrics_url
        assert url is not None
        port = int(url.rpartition(":")[2].partition("/")[0])
    async with start_server(metrics_port=port) as server:
        assert server.metrics_url == url
