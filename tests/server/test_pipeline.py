"""Guards `server.pipeline`: one message through the real model and index, without sockets.

Nothing is confirmed here; `test_confirming` is about that. The event loop's clock stands still until a test moves it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta

import msgspec
import pytest

from server.engine import Engine
from server.errors import DeadlineExceeded, Internal
from server.pipeline import LEAST_OVERHEAD, Pipeline, Resolved, Running
from server.settings import Settings
from server.telemetry import Metrics
from tests.server.fakes import EVERY_DAY, Batch, Clock, Device, HeldEngine, sample, serving_of, until
from tests.server.raw import UNSEEN

OTHER = "can u send me the bill again for my company"
THIRD = "is the blue one in stock"
FAR = 1e9
# Where something waits and nobody comes, that is known soon.
pytestmark = [pytest.mark.timeout(60, func_only=True), pytest.mark.usefixtures("clock")]


@pytest.fixture
async def pipeline(engine: Engine, settings: Settings, metrics: Metrics) -> AsyncIterator[Pipeline]:
    """A pipeline over the real engine."""
    async with serving_of(engine, settings, metrics) as serving:
        yield serving.pipeline


@pytest.fixture
async def held(held_engine: HeldEngine, caching: Settings, metrics: Metrics) -> AsyncIterator[Pipeline]:
    """A pipeline of two lanes whose encoder waits for the test, and that keeps answers."""
    # Whatever was measured when the engine was loaded: here the device is quick.
    async with serving_of(replace(held_engine, encoder_took=()), caching, metrics) as serving:
        yield serving.pipeline


def ask(pipeline: Pipeline, text: str, deadline: float = FAR) -> asyncio.Task[Resolved]:
    """A message on its way."""
    return asyncio.create_task(pipeline.resolve(text, deadline))


async def occupy(pipeline: Pipeline, device: Device) -> tuple[list[asyncio.Task[Resolved]], Batch]:
    """Messages that hold both lanes, so that what comes now has to wait; and the batch of the last."""
    tasks = []
    for text in (OTHER, THIRD):
        tasks.append(ask(pipeline, text))
        batch = await device.arrived.get()
    return tasks, batch


async def test_message_is_encoded_searched_and_decided(pipeline: Pipeline, engine: Engine) -> None:
    """An unseen message gets the entry whose phrasings are nearest, and it is known where its time went."""
    resolved = await pipeline.resolve(UNSEEN, FAR)
    assert engine.index.faq.entries[resolved.outcome.candidates[0].entry].id == "track-order"
    assert (resolved.outcome.confirmation, resolved.outcome.scored) == ("disabled", 0)
    assert resolved.day == EVERY_DAY
    assert set(resolved.stages) == {"tokenize", "queue", "encode", "search", "decide"}


async def test_batched_with_others_a_message_decides_alike(pipeline: Pipeline) -> None:
    """A message alone and in a batch with others ends in the same entry, with the same confidence but for rounding."""
    texts = (UNSEEN, OTHER, THIRD, "how do i pay")
    alone = [await pipeline.resolve(text, FAR) for text in texts]
    together = await asyncio.gather(*(pipeline.resolve(text, FAR) for text in texts))
    for one, other in zip(alone, together, strict=True):
        assert one.outcome.candidates[0].entry == other.outcome.candidates[0].entry
        assert one.outcome.decision.confidence == pytest.approx(other.outcome.decision.confidence, abs=0.01)


async def test_stages_add_up(held: Pipeline, device: Device, clock: Clock) -> None:
    """The time until its batch left is the queue's; what the batch took is split between model and search."""
    _, batch = await occupy(held, device)
    asking = ask(held, UNSEEN)
    await until(lambda: held._encode.waiting == 1)
    clock.now += 2000
    batch.finish()
    batch = await device.arrived.get()
    clock.now += 1000
    batch.finish()
    stages = (await asking).stages
    assert (stages["tokenize"], stages["queue"], stages["decide"]) == (0, 2000, 0)
    assert stages["encode"] + stages["search"] == pytest.approx(1000)


@pytest.mark.parametrize("text", ["Where is my order?", "  where's MY stuff  "])
async def test_phrasing_needs_no_model(held: Pipeline, engine: Engine, device: Device, text: str) -> None:
    """A message that equals a phrasing gets its entry for sure and at once, and the device never hears of it."""
    resolved = held.begin(text, FAR)
    assert isinstance(resolved, Resolved)
    entry = resolved.outcome.decision.entry
    assert entry is not None
    assert engine.index.faq.entries[entry].id == "track-order"
    assert resolved.outcome.decision.confidence == 1.0
    assert (resolved.outcome.confirmation, resolved.stages) == ("not_needed", {})
    assert device.seen == []


async def test_answers_are_kept(held: Pipeline, device: Device, metrics: Metrics) -> None:
    """A message that comes again, however it is typed, gets the same outcome at once; no model runs."""
    asking = ask(held, UNSEEN)
    (await device.arrived.get()).finish()
    first = await asking
    again = held.begin(f"  {UNSEEN.upper()}?", FAR)
    assert again == Resolved(first.outcome, first.day, {})
    assert len(device.seen) == 1
    assert sample(metrics, "cache_requests_total", result="hit") == 1


async def test_answers_are_not_kept_where_there_is_no_cache(pipeline: Pipeline, metrics: Metrics) -> None:
    """With a cache of size 0 a message that comes again is encoded again."""
    await pipeline.resolve(UNSEEN, FAR)
    running = pipeline.begin(UNSEEN, FAR)
    assert isinstance(running, Running)
    await pipeline.finish(running)
    assert sample(metrics, "cache_requests_total", result="miss") == 0
    assert sample(metrics, "cache_entries") == 0


async def test_same_text_in_flight_is_computed_once(held: Pipeline, device: Device, metrics: Metrics) -> None:
    """A message that comes again while it is encoded shares that; to cancel one is nothing to the other."""
    asking = [ask(held, UNSEEN) for _ in range(3)]
    batch = await device.arrived.get()
    asking.append(ask(held, UNSEEN))
    await until(lambda: sample(metrics, "shared_total", model="bi-encoder") == 3)
    asking.pop(0).cancel()
    batch.finish()
    first, *others = [resolved.outcome for resolved in await asyncio.gather(*asking)]
    assert others == [first, first]
    assert len(device.seen) == 1


async def test_spent_budget_ends_before_the_model(held: Pipeline, device: Device, clock: Clock) -> None:
    """A message whose deadline has passed never reaches the device."""
    with pytest.raises(DeadlineExceeded, match="before the message was looked at"):
        held.begin(UNSEEN, clock())
    assert device.seen == []


async def test_budget_that_is_spent_in_the_queue(
    held: Pipeline, device: Device, clock: Clock, metrics: Metrics
) -> None:
    """Past its deadline nothing is known of a message that waits: it ends then, and never reaches the device."""
    others, _ = await occupy(held, device)
    deadline = clock() + 10
    asking = ask(held, UNSEEN, deadline)
    await until(lambda: held._encode.waiting == 1)
    clock.now = deadline - LEAST_OVERHEAD
    with pytest.raises(DeadlineExceeded, match="before the model ran"):
        await asking
    assert not any(other.done() for other in others)
    assert len(device.seen) == 2
    assert sample(metrics, "dropped_total", model="bi-encoder", cause="expired") == 1


async def test_budget_that_is_spent_on_the_device(held: Pipeline, device: Device, clock: Clock) -> None:
    """A message whose batch does not end in time ends without it; the reply has time to be written."""
    deadline = clock() + 10
    asking = ask(held, UNSEEN, deadline)
    await device.arrived.get()
    clock.now = deadline - LEAST_OVERHEAD
    with pytest.raises(DeadlineExceeded, match="while the model ran"):
        await asking
    assert clock() < deadline


async def test_cancelled_message_is_dropped(held: Pipeline, device: Device, metrics: Metrics) -> None:
    """A message that is cancelled while it waits never reaches the device, and is no answered one."""
    others, _ = await occupy(held, device)
    asking = ask(held, UNSEEN)
    await until(lambda: held._encode.waiting == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    device.let_go()
    await asyncio.gather(*others)
    assert len(device.seen) == 2
    assert sample(metrics, "dropped_total", model="bi-encoder", cause="cancelled") == 1
    await until(lambda: sample(metrics, "confirmations_total", status="disabled") == 2)


async def test_abandoned_message_is_dropped(held: Pipeline, device: Device) -> None:
    """A message that was accepted and that nobody waits for leaves the queue; to abandon it again does nothing."""
    others, _ = await occupy(held, device)
    running = held.begin(UNSEEN, FAR)
    assert isinstance(running, Running)
    for _ in range(2):
        held.abandon(running)
        assert held._encode.waiting == 0
    device.let_go()
    await asyncio.gather(*others)
    assert len(device.seen) == 2


async def test_failing_model_is_internal(held: Pipeline, device: Device, metrics: Metrics) -> None:
    """What the model raises ends the message as `internal` and is not kept; the next one is answered."""
    failing = ask(held, UNSEEN)
    (await device.arrived.get()).fail(RuntimeError("the session broke"))
    with pytest.raises(Internal):
        await failing
    working = ask(held, UNSEEN)
    (await device.arrived.get()).finish()
    assert (await working).outcome.candidates
    assert sample(metrics, "cache_requests_total", result="hit") == 0


@pytest.mark.parametrize("text", ["Where is my order?", UNSEEN])
async def test_only_what_is_valid_today(engine: Engine, caching: Settings, metrics: Metrics, text: str) -> None:
    """An entry answers until its last day and not after it, by a phrasing, by a search, and from the cache."""
    entries = [
        msgspec.structs.replace(entry, valid_to=EVERY_DAY) if entry.id == "track-order" else entry
        for entry in engine.index.faq.entries
    ]
    faq = msgspec.structs.replace(engine.index.faq, entries=tuple(entries))
    seasonal = replace(engine, index=replace(engine.index, faq=faq, _days={}))
    today = EVERY_DAY

    def calendar() -> date:
        return today

    async with serving_of(seasonal, caching, metrics, today=calendar) as serving:

        async def shown() -> set[str]:
            resolved = await serving.pipeline.resolve(text, FAR)
            assert resolved.day == today
            outcome = resolved.outcome
            named = {outcome.decision.entry} if outcome.decision.entry is not None else set()
            return {entries[position].id for position in named | {c.entry for c in outcome.candidates}}

        for _ in range(2):
            assert "track-order" in await shown()
        today += timedelta(days=1)
        for _ in range(2):
            assert "track-order" not in await shown()


async def test_how_messages_ended_is_counted(held: Pipeline, device: Device, metrics: Metrics) -> None:
    """Answered messages are counted by decision and confirmation, also those that needed no model; errors are not."""
    device.let_go()
    resolved = [await held.resolve(text, FAR) for text in (UNSEEN, UNSEEN, "Where is my order?")]
    with pytest.raises(DeadlineExceeded):
        await held.resolve(OTHER, 0.0)
    kinds = [one.outcome.decision.kind for one in resolved]
    await until(lambda: sample(metrics, "confirmations_total", status="not_needed") == 1)
    assert sample(metrics, "confirmations_total", status="disabled") == 2
    for kind in ("answer", "clarify", "no_match", "handoff"):
        assert sample(metrics, "messages_total", decision=kind) == kinds.count(kind)
    assert [
        sample(metrics, "stage_seconds_count", stage=stage)
        for stage in ("tokenize", "queue", "encode", "search", "decide", "confirm", "confirm_queue")
    ] == [1, 1, 1, 1, 1, 0, 0]
    assert sample(metrics, "candidates_confirmed_count") == 0
    assert sample(metrics, "decisions_changed_total") == 0
