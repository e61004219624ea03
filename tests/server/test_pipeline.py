"""Guards `server.pipeline`: one message through the real model and index, without sockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date

import msgspec
import numpy as np
import pytest

from export.runtime.tokens import Tokens
from server.batching import MicroBatcher
from server.engine import Engine, Searched
from server.errors import DeadlineExceeded, Internal
from server.pipeline import Pipeline
from tests.server.fakes import Device, HeldEngine
from tests.server.raw import UNSEEN

OTHER = "can u send me the bill again for my company"

Batcher = MicroBatcher[Tokens, Searched]


def batcher_of(engine: Engine) -> Batcher:
    """A batcher of one lane over an engine."""
    return Batcher(engine.retrieve, length=len, lanes=1, max_queue=8, max_batch=8, max_tokens=4096)


def pipeline_of(engine: Engine, batcher: Batcher) -> Pipeline:
    """A pipeline on a day on which every entry of the shop is valid."""
    return Pipeline(engine, batcher, lambda: date(2026, 11, 23))


def far() -> float:
    """A deadline that no test reaches."""
    return asyncio.get_running_loop().time() + 1000


@pytest.fixture
async def held(held_engine: HeldEngine, device: Device) -> AsyncIterator[Pipeline]:
    """A pipeline whose encoder waits for the test."""
    batcher = batcher_of(held_engine)
    yield pipeline_of(held_engine, batcher)
    device.let_go()
    await batcher.close()


@pytest.fixture
async def pipeline(engine: Engine) -> AsyncIterator[Pipeline]:
    """A pipeline over the real engine."""
    batcher = batcher_of(engine)
    yield pipeline_of(engine, batcher)
    await batcher.close()


async def test_message_is_encoded_searched_and_decided(pipeline: Pipeline, engine: Engine) -> None:
    """An unseen message gets the entry whose phrasings are nearest, and every stage took some time."""
    resolved = await pipeline.resolve(UNSEEN, far())
    assert engine.index.faq.entries[resolved.outcome.candidates[0].entry].id == "track-order"
    assert resolved.outcome.confirmation == "disabled"
    timing = resolved.timing
    assert min(timing.tokenize, timing.encode, timing.search) > 0
    assert timing.queue >= 0


async def test_batched_with_others_a_message_decides_alike(pipeline: Pipeline) -> None:
    """A message alone and in a batch with others ends in the same entry, with the same confidence but for rounding."""
    alone = [await pipeline.resolve(text, far()) for text in (UNSEEN, OTHER)]
    together = await asyncio.gather(*(pipeline.resolve(text, far()) for text in (UNSEEN, OTHER)))
    for one, other in zip(alone, together, strict=True):
        assert one.outcome.candidates[0].entry == other.outcome.candidates[0].entry
        assert one.outcome.decision.confidence == pytest.approx(other.outcome.decision.confidence, abs=0.01)


@pytest.mark.parametrize("text", ["Where is my order?", "  where's MY stuff  "])
async def test_phrasing_needs_no_model(held: Pipeline, engine: Engine, device: Device, text: str) -> None:
    """A message that equals a phrasing gets its entry for sure, and the device never hears of it."""
    resolved = await held.resolve(text, far())
    entry = resolved.outcome.decision.entry
    assert entry is not None
    assert engine.index.faq.entries[entry].id == "track-order"
    assert resolved.outcome.decision.confidence == 1.0
    assert resolved.outcome.confirmation == "not_needed"
    assert device.seen == []


async def test_spent_budget_ends_before_the_model(held: Pipeline, device: Device) -> None:
    """A message whose deadline has passed is not even tokenized."""
    with pytest.raises(DeadlineExceeded, match="before the message was looked at"):
        await held.resolve(UNSEEN, asyncio.get_running_loop().time())
    assert device.seen == []


async def test_cancelled_message_is_dropped(held: Pipeline, device: Device) -> None:
    """A message that is cancelled while it waits never reaches the device."""
    first = asyncio.create_task(held.resolve(UNSEEN, far()))
    batch = await device.arrived.get()
    second = asyncio.create_task(held.resolve(OTHER, far()))
    await asyncio.sleep(0)
    second.cancel()
    batch.finish()
    await first
    assert len(device.seen) == 1
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_failing_model_is_internal(held: Pipeline, device: Device) -> None:
    """What the model raises ends the message as `internal`; the next one is answered."""
    failing = asyncio.create_task(held.resolve(UNSEEN, far()))
    (await device.arrived.get()).fail(RuntimeError("the session broke"))
    with pytest.raises(Internal):
        await failing
    working = asyncio.create_task(held.resolve(UNSEEN, far()))
    (await device.arrived.get()).finish()
    assert (await working).outcome.candidates


async def test_only_what_is_valid_today(engine: Engine) -> None:
    """An entry answers until its last day and not after it, whether the message equals a phrasing or not."""
    last = date(2026, 12, 24)
    entries = [
        msgspec.structs.replace(entry, valid_to=last) if entry.id == "track-order" else entry
        for entry in engine.index.faq.entries
    ]
    faq = msgspec.structs.replace(engine.index.faq, entries=tuple(entries))
    seasonal = replace(engine, index=replace(engine.index, faq=faq, _days={}))
    today = last
    batcher = batcher_of(seasonal)
    pipeline = Pipeline(seasonal, batcher, lambda: today)

    async def shown(text: str) -> set[str]:
        outcome = (await pipeline.resolve(text, far())).outcome
        named = {outcome.decision.entry} if outcome.decision.entry is not None else set()
        return {entries[position].id for position in named | {c.entry for c in outcome.candidates}}

    assert "track-order" in await shown("Where is my order?")
    assert "track-order" in await shown(UNSEEN)
    today = date(2026, 12, 25)
    assert "track-order" not in await shown("Where is my order?")
    assert "track-order" not in await shown(UNSEEN)
    await batcher.close()


async def test_engine_retrieves_for_each(engine: Engine) -> None:
    """The engine's retrieve is what the batcher wants: a unit vector and its items for each input, on any lane."""
    tokens = [engine.encoder.tokenize(text) for text in (UNSEEN, OTHER)]
    for lane in range(engine.encoder.sessions):
        found = [searched.found for searched in engine.retrieve(tokens, lane)]
        assert len(found) == 2
        assert np.linalg.norm([f.vector for f in found], axis=1) == pytest.approx(1.0, abs=1e-3)
        assert all(len(f.positions) == engine.index.manifest.plan.neighbours for f in found)
