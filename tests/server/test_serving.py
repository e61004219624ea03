"""Guards `server.serving`: what is put together of an engine and settings, and how it ends."""

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from export.runtime.encoder import Measured
from server.engine import Engine
from server.errors import Overloaded, ShuttingDown
from server.pipeline import Resolved, Running
from server.serving import Serving, local_date
from server.settings import Settings
from server.telemetry import Metrics
from tests.server.fakes import Clock, Device, HeldEngine, sample, serving_of, until
from tests.server.raw import UNSEEN

OTHERS = ("can u send me the bill again", "is the blue one in stock", "how do i pay for it")
FAR = 1e9
# Where something waits and nobody comes, that is known soon.
pytestmark = [pytest.mark.timeout(60, func_only=True), pytest.mark.usefixtures("clock")]


def ask(serving: Serving, text: str) -> asyncio.Task[Resolved]:
    """A message on its way."""
    return asyncio.create_task(serving.pipeline.resolve(text, FAR))


def test_local_date() -> None:
    """Entries are valid by the calendar of the place where the server runs."""
    before = datetime.now().astimezone().date()
    assert before <= local_date() <= datetime.now().astimezone().date()


async def test_there_is_a_lane_for_each_session(
    held_engine: HeldEngine, settings: Settings, metrics: Metrics, device: Device
) -> None:
    """As many batches run at the same time as the encoder has sessions, each on its own."""
    async with serving_of(held_engine, settings, metrics) as serving:
        assert serving.lanes.count == held_engine.encoder.sessions == 2
        asking = [ask(serving, text) for text in OTHERS]
        batches = [await device.arrived.get() for _ in range(2)]
        assert {batch.lane for batch in batches} == {0, 1}
        device.let_go()
        await asyncio.gather(*asking)


async def test_admission_knows_what_the_warm_up_measured(
    engine: Engine, settings: Settings, metrics: Metrics, clock: Clock
) -> None:
    """The first message already is refused at once where the model is too slow for its budget, and told when to retry.

    The same budget is enough where the model is quick, or where nothing was measured.
    """
    deadline = clock() + 1
    slow = replace(engine, encoder_took=(Measured(1, 8, 2.0), Measured(1, 16, 4.0)))
    async with serving_of(slow, settings, metrics) as serving:
        with pytest.raises(Overloaded) as caught:
            serving.pipeline.begin(UNSEEN, deadline)
        assert caught.value.retry_after_ms is not None
        assert caught.value.retry_after_ms >= 1000
        assert not caught.value.queue_full
        await serving.pipeline.resolve(UNSEEN, clock() + 1000)
    for took in ((), (Measured(1, 8, 0.002), Measured(1, 16, 0.004))):
        async with serving_of(replace(engine, encoder_took=took), settings, metrics) as serving:
            await serving.pipeline.resolve(UNSEEN, deadline)


async def test_the_queue_is_bounded_by_the_setting(
    held_engine: HeldEngine, settings: Settings, metrics: Metrics, device: Device
) -> None:
    """What comes on top of as many messages as may wait is refused."""
    bounded = settings.model_copy(update={"max_queue": 1})
    async with serving_of(held_engine, bounded, metrics) as serving:
        asking = []
        for text in OTHERS[:2]:
            asking.append(ask(serving, text))
            await device.arrived.get()
        asking.append(ask(serving, OTHERS[2]))
        await until(lambda: serving._encode.waiting == 1)
        with pytest.raises(Overloaded) as caught:
            serving.pipeline.begin(UNSEEN, FAR)
        assert caught.value.queue_full
        device.let_go()
        await asyncio.gather(*asking)


@pytest.mark.parametrize("size", [0, 1, 2])
async def test_the_cache_is_as_large_as_the_setting(
    engine: Engine, settings: Settings, metrics: Metrics, size: int
) -> None:
    """As many answers are kept as the operator says, and with 0 none is looked up."""
    async with serving_of(engine, settings.model_copy(update={"cache_size": size}), metrics) as serving:
        for text in OTHERS:
            await serving.pipeline.resolve(text, FAR)
        assert sample(metrics, "cache_entries") == size
        assert sample(metrics, "cache_requests_total", result="miss") == (len(OTHERS) if size else 0)


async def test_close(held_engine: HeldEngine, settings: Settings, metrics: Metrics, device: Device) -> None:
    """What waits and what comes is refused; what runs ends, and is answered."""
    serving = Serving(held_engine, settings, metrics)
    running = []
    for text in OTHERS[:2]:
        running.append(ask(serving, text))
        await device.arrived.get()
    waiting = ask(serving, OTHERS[2])
    await until(lambda: serving._encode.waiting == 1)
    closing = asyncio.create_task(serving.close())
    with pytest.raises(ShuttingDown):
        await waiting
    with pytest.raises(ShuttingDown):
        serving.pipeline.begin(UNSEEN, FAR)
    assert not closing.done()
    device.let_go()
    assert await closing
    assert [len((await asking).outcome.candidates) > 0 for asking in running] == [True, True]
    assert len(device.seen) == 2


async def test_what_needs_no_model_is_answered_to_the_last(
    engine: Engine, settings: Settings, metrics: Metrics
) -> None:
    """A closed one still knows its phrasings: connections that drain get what can be had."""
    async with serving_of(engine, settings, metrics) as serving:
        assert await serving.close()
        assert isinstance(serving.pipeline.begin("Where is my order?", FAR), Resolved)


async def test_close_gives_up_on_what_hangs(
    held_engine: HeldEngine, settings: Settings, metrics: Metrics, device: Device, clock: Clock
) -> None:
    """A batch that does not end keeps closing no longer than patience lasts."""
    async with serving_of(held_engine, settings, metrics) as serving:
        running = serving.pipeline.begin(UNSEEN, FAR)
        assert isinstance(running, Running)
        await device.arrived.get()
        closing = asyncio.create_task(serving.close(patience=3))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clock.now += 4
        assert not await closing
        serving.pipeline.abandon(running)
