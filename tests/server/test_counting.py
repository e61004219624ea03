"""Guards what a real server tells Prometheus, and that it keeps its answers."""

import asyncio
import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from export.runtime.encoder import Measured
from server.app import Server
from tests.server.conftest import ServerFactory
from tests.server.fakes import Clock, Device, HeldEngine, until
from tests.server.raw import UNSEEN, UPGRADE, Raw, dial, get


async def scraped(server: Server) -> Any:
    """What the metrics page says: the value of a metric with these labels, 0 where it is not there."""
    url = server.metrics_url
    assert url is not None
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())  # noqa: S310 its own
    samples = {
        (sample.name.removeprefix("faqwire_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    return lambda name, **labels: samples.get((name, tuple(sorted(labels.items()))), 0.0)


async def answers(client: Raw, *texts: str) -> list[Any]:
    """The replies to questions, one after the other."""
    replies = []
    for number, text in enumerate(texts):
        await client.ask(f"{number}", text)
        replies.append(await client.receive())
    return replies


async def test_messages_are_counted(start_server: ServerFactory) -> None:
    """Decisions, confirmations, stages, errors, connections and what is in use show on the page."""
    async with start_server(metrics_port=0) as server, dial(server) as client:
        await answers(client, "Where is my order?", UNSEEN, "")
        await client.flush()
        value = await scraped(server)
        assert value("messages_total", decision="answer") == 2
        assert value("confirmations_total", status="not_needed") == 1
        assert value("confirmations_total", status="disabled") == 1
        assert value("errors_total", code="invalid_text") == 1
        assert value("message_seconds_count", type="answer") == 2
        assert value("message_seconds_count", type="error") == 1
        for stage in ("tokenize", "queue", "encode", "search", "decide"):
            assert value("stage_seconds_count", stage=stage) == 1, stage
        assert value("batch_rows_sum", model="bi-encoder") == 1
        assert value("connections") == 1
        variant = server._engine.encoder.variant
        assert value("model_in_use", model="bi-encoder", provider="CPUExecutionProvider", variant=variant) == 1
        assert value("index_in_use", version=client.welcome["index"]) == 1


async def test_refusals_are_counted(start_held: ServerFactory, device: Device) -> None:
    """A question that is turned away counts by the reason."""
    async with start_held(metrics_port=0, max_queue=1, max_in_flight=5) as server, dial(server) as client:
        lanes = server._engine.encoder.sessions
        await client.occupy(device, lanes)
        await client.ask("waiting", UNSEEN)
        await client.ask("too many", f"{UNSEEN} now")
        assert (await client.receive())["code"] == "overloaded"
        value = await scraped(server)
        assert value("refusals_total", reason="queue_full") == 1
        assert value("queue_length", model="bi-encoder") == 1
        device.let_go()
        for _ in range(lanes + 1):
            await client.receive()


async def test_each_refusal_has_its_reason(
    start_held: ServerFactory, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lack of time, too many questions of one client, too many clients, and a server that stops are told apart."""
    async with start_held(metrics_port=0, max_in_flight=3, max_connections=2) as server, dial(server) as client:
        lanes = server._engine.encoder.sessions
        await client.occupy(device, lanes)
        value = await scraped(server)
        assert not any(value("refusals_total", reason=reason) for reason in ("budget", "in_flight", "connections"))
        async with dial(server):
            assert (await get(server, "/", *UPGRADE)).status == 503
            assert (await scraped(server))("connections") == 2
        await client.ask("waiting", f"{UNSEEN} now")
        await client.ask("too many", f"{UNSEEN} too")
        error = await client.receive()
        assert (error["id"], error["code"]) == ("too many", "too_many_in_flight")
        monkeypatch.setattr("server.draining.GRACE_SECONDS", 0.0)
        stopping = asyncio.create_task(server.stop())
        assert (await client.receive())["type"] == "going_away"
        await client.flush()
        await client.ask("too late", UNSEEN)
        assert (await client.receive())["code"] == "shutting_down"
        value = await scraped(server)
        assert value("connections") == 1
        for reason in ("in_flight", "connections", "stopping"):
            assert value("refusals_total", reason=reason) == 1, reason
        device.let_go()
        await stopping


async def test_what_takes_too_long_is_refused_at_once(start_server: ServerFactory, held_engine: HeldEngine) -> None:
    """A budget that the model cannot keep is refused, with a time that means something; a larger one is answered.

    The device holds nothing, and was measured to be slow.
    """
    slow = tuple(Measured(rows, tokens, 0.5 * rows) for rows in (1, 2, 4) for tokens in (8, 16, 32))
    engine = replace(held_engine, device=None, encoder_took=slow)
    async with start_server(engine=engine, metrics_port=0) as server, dial(server) as client:
        await client.ask("1", UNSEEN, budget_ms=100)
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("1", "overloaded", True)
        assert error["retry_after_ms"] >= 500
        assert "budget" in error["message"]
        await client.ask("2", UNSEEN, budget_ms=9000)
        assert (await client.receive())["type"] == "answer"
        await client.flush()
        value = await scraped(server)
        assert value("refusals_total", reason="budget") == 1
        assert value("errors_total", code="overloaded") == 1
        assert value("batch_rows_sum", model="bi-encoder") == 1
        assert value("deadline_misses_total") == 0


async def test_budgets_are_each_message_s_own(start_held: ServerFactory, device: Device, clock: Clock) -> None:
    """A message ends by its own budget; the same question with more time is answered by the same run of the model."""
    async with start_held(metrics_port=0, budget_ms=9000) as server, dial(server) as client:
        await client.ask("patient", UNSEEN)
        batch = await device.arrived.get()
        await client.ask("hasty", UNSEEN, budget_ms=5)
        await client.flush()
        clock.now += 0.005
        error = await client.receive()
        assert (error["id"], error["code"]) == ("hasty", "deadline_exceeded")
        value = await scraped(server)
        assert value("errors_total", code="deadline_exceeded") == 1
        assert value("shared_total", model="bi-encoder") == 1
        batch.finish()
        answer = await client.receive()
        assert (answer["id"], answer["type"]) == ("patient", "answer")
        assert len(device.seen) == 1


async def test_who_leaves_is_counted_as_such(start_held: ServerFactory, device: Device) -> None:
    """What a client has left behind in the queue is dropped, and counts as that and not as an error."""
    async with start_held(metrics_port=0) as server, dial(server) as client:
        await client.occupy(device, server._engine.encoder.sessions)
        async with dial(server) as leaving:
            for number in range(3):
                await leaving.ask(f"{number}", f"{UNSEEN} {number}")
            await leaving.flush()
        await until(lambda: len(server.reception.connections) == 1)
        value = await scraped(server)
        assert value("dropped_total", model="bi-encoder", cause="cancelled") == 3
        assert value("queue_length", model="bi-encoder") == 0
        assert value("message_seconds_count", type="error") == 0
        device.let_go()


async def test_repeated_questions_are_answered_from_the_cache(start_server: ServerFactory) -> None:
    """A question that comes again, in other case and white space, gets the same answer without the model."""
    async with start_server(metrics_port=0, cache_size=10) as server, dial(server) as client:
        first, second = await answers(client, UNSEEN, f"  {UNSEEN.upper()} ")
        await client.flush()
        value = await scraped(server)
        changing = {"id", "ref", "timing_ms"}
        assert {k: v for k, v in first.items() if k not in changing} == {
            k: v for k, v in second.items() if k not in changing
        }
        assert first["ref"] != second["ref"]
        assert set(second["timing_ms"]) == {"total"}
        assert value("cache_requests_total", result="hit") == 1
        assert value("batch_rows_sum", model="bi-encoder") == 1
        assert value("cache_entries") == 1
