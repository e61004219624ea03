"""Guards how `server.pipeline` confirms: a real small cross-encoder, or logits by hand, within the time there is.

The event loop's clock stands still until a test moves it, so devices are as quick as they were taught to be.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from export.convert import export_model
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.encoder import Measured
from export.runtime.session import CPU
from export.runtime.session import Device as Hardware
from export.runtime.tokens import Tokens
from intents.cascade import Confirmation, NeedScores, resolve
from intents.decide import Decision
from server.batching import RESERVE
from server.engine import Engine
from server.pipeline import LEAST_OVERHEAD, Resolved
from server.serving import Serving
from server.settings import Settings
from server.telemetry import Metrics, values_of
from tests.intents.small import CONFIRMER, confirming
from tests.server.fakes import EVERY_DAY, Clock, Device, HeldEngine, sample, serving_of, until
from tests.server.raw import UNSEEN

# It has more tokens than the other, which is how the cost model tells them apart.
LONG = " ".join(["i ordered a blue jacket some weeks ago and nothing has come so far"] * 4)
FAR = 1e9
# Where something waits and nobody comes, that is known soon.
pytestmark = [pytest.mark.timeout(60, func_only=True), pytest.mark.usefixtures("clock")]


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    """A small random cross-encoder with two sessions, whose pairs have at most 32 tokens."""
    from tests.export.models import make_model  # brings torch

    folder = tmp_path_factory.mktemp("cross")
    model = make_model(folder / "model", labels=1)
    bundle = export_model(str(model), folder / "bundle", variants=()).bundle
    return CrossEncoder(bundle, "fp32", Hardware(CPU), max_tokens=32, sessions=2)


@pytest.fixture
def sure(engine: Engine, cross_encoder: CrossEncoder) -> HeldEngine:
    """The shop's engine with that cross-encoder, which confirms every message that it has to encode."""
    return HeldEngine(engine.encoder, confirming(engine.index), engine.search, cross_encoder)


@dataclass(frozen=True)
class Told(Engine):
    """The real engine, but for the cross-encoder, which says of each pair what the test says.

    Attributes:
        logits: by the pair's token ids.
    """

    logits: dict[bytes, float] = field(default_factory=dict)

    def score(self, batch: Sequence[Tokens], lane: int) -> list[float]:
        """What the test says, on any lane."""
        del lane
        return [self.logits[tokens.ids.tobytes()] for tokens in batch]


Tell = Callable[..., Told]


@pytest.fixture
def tell(sure: HeldEngine, cross_encoder: CrossEncoder) -> Tell:
    """Make an engine that gives these logits to the candidates of `UNSEEN`, best first."""
    texts = needed(sure)
    pairs = [cross_encoder.tokenize(UNSEEN, text).ids.tobytes() for text in texts]
    assert len(set(pairs)) == CONFIRMER.candidates

    def run(*logits: float) -> Told:
        given = dict(zip(pairs, logits, strict=True))
        return Told(sure.encoder, sure.index, sure.search, sure.cross_encoder, logits=given)

    return run


def needed(engine: Engine) -> tuple[str, ...]:
    """The candidates that the cascade wants to have read with `UNSEEN`."""
    steps = resolve(UNSEEN, engine.index, EVERY_DAY, confirm=True)
    next(steps)
    [found] = engine.search.retrieve(engine.encoder.encode([UNSEEN]))
    need = steps.send(found)
    assert isinstance(need, NeedScores)
    return need.candidates


def ask(serving: Serving, text: str, deadline: float = FAR) -> asyncio.Task[Resolved]:
    """A message on its way."""
    return asyncio.create_task(serving.pipeline.resolve(text, deadline))


async def alone(engine: Engine, settings: Settings) -> Decision:
    """What the bi-encoder alone decides about `UNSEEN`."""
    async with serving_of(replace(engine, cross_encoder=None), settings, Metrics(CollectorRegistry())) as serving:
        outcome = (await serving.pipeline.resolve(UNSEEN, FAR)).outcome
        assert outcome.confirmation == "disabled"
        return outcome.decision


async def counted(metrics: Metrics, confirmation: Confirmation) -> None:
    """Wait until one message was counted, and see that it was under this status."""
    assert confirmation in values_of(Confirmation)
    await until(lambda: sample(metrics, "confirmations_total", status=confirmation) == 1)
    statuses = [sample(metrics, "confirmations_total", status=status) for status in values_of(Confirmation)]
    assert sum(value or 0 for value in statuses) == 1


async def test_the_cross_encoder_reads_the_candidates(
    sure: HeldEngine, cross_encoder: CrossEncoder, caching: Settings, metrics: Metrics
) -> None:
    """The real models, lanes and batchers come to what the cascade comes to with the same logits, and time is known."""
    steps = resolve(UNSEEN, sure.index, EVERY_DAY, confirm=True)
    next(steps)
    steps.send(sure.search.retrieve(sure.encoder.encode([UNSEEN]))[0])
    logits = cross_encoder.score([(UNSEEN, text) for text in needed(sure)])
    with pytest.raises(StopIteration) as stop:
        steps.send(logits)
    expected = stop.value.value
    async with serving_of(sure, caching, metrics) as serving:
        resolved = await serving.pipeline.resolve(UNSEEN, FAR)
    outcome = resolved.outcome
    assert (outcome.confirmation, outcome.scored) == (expected.confirmation, 4)
    assert [c.entry for c in outcome.candidates] == [c.entry for c in expected.candidates]
    assert outcome.decision.confidence == pytest.approx(expected.decision.confidence, abs=1e-3)
    assert set(resolved.stages) == {"tokenize", "queue", "encode", "search", "confirm_queue", "confirm", "decide"}
    assert sample(metrics, "stage_seconds_count", stage="confirm") == 1


@pytest.mark.parametrize(
    ("logits", "status", "kind", "changed"),
    [
        ((8.0, -3.0, -3.0, -3.0), "confirmed", "answer", False),
        ((-5.0, 8.0, -3.0, -3.0), "overruled", "answer", True),
        ((-4.8, -16.0, -16.0, -16.0), "rejected", "clarify", True),
    ],
)
async def test_what_the_cross_encoder_says_decides(
    tell: Tell,
    caching: Settings,
    metrics: Metrics,
    logits: tuple[float, ...],
    status: Confirmation,
    kind: str,
    changed: bool,  # noqa: FBT001 given by name
) -> None:
    """The first candidate stays, gives way to another, or is not good enough; what is new is counted and kept."""
    engine = tell(*logits)
    before = await alone(engine, caching)
    assert before.kind == "answer"
    async with serving_of(engine, caching, metrics) as serving:
        outcome = (await serving.pipeline.resolve(UNSEEN, FAR)).outcome
        assert (outcome.confirmation, outcome.scored, outcome.decision.kind) == (status, 4, kind)
        assert outcome.unconfirmed == before
        await counted(metrics, status)
        again = serving.pipeline.begin(UNSEEN, FAR)
        assert again == Resolved(outcome, EVERY_DAY, {})
        await until(lambda: sample(metrics, "confirmations_total", status=status) == 2)
    # The cross-encoder read candidates once, and once it changed a decision.
    assert sample(metrics, "candidates_confirmed_count") == 1
    assert sample(metrics, "candidates_confirmed_sum") == 4
    assert sample(metrics, "decisions_changed_total") == changed
    assert sample(metrics, "messages_total", decision=kind) == 2


async def test_no_more_are_read_than_the_setting_says(tell: Tell, caching: Settings, metrics: Metrics) -> None:
    """An operator may have fewer read than the index was built for; that is all that is asked for, and is kept."""
    few = caching.model_copy(update={"candidates": 3})
    async with serving_of(tell(8.0, -3.0, -3.0, -3.0), few, metrics) as serving:
        assert (await serving.pipeline.resolve(UNSEEN, FAR)).outcome.scored == 3
        assert sample(metrics, "cache_entries") == 1


@pytest.mark.parametrize(
    ("budget", "scored"),
    [(1.9, 0), (2.6, 2), (4.9, 2), (5.1, 4)],
)
async def test_as_many_are_read_as_fit(
    tell: Tell, caching: Settings, metrics: Metrics, clock: Clock, budget: float, scored: int
) -> None:
    """Two lanes, and a batch of one or two pairs that seldom takes more than 2.5 or 5 s: more time, more candidates.

    With less than all of them the message is decided, and the outcome is not kept: there may be more time next time.
    """
    took = (Measured(1, 32, 1.0), Measured(2, 32, 2.0))
    engine = replace(tell(8.0, -3.0, -3.0, -3.0), cross_encoder_took=took)
    async with serving_of(engine, caching, metrics) as serving:
        resolved = await serving.pipeline.resolve(UNSEEN, clock() + budget)
    status: Confirmation = "confirmed" if scored else "skipped_budget"
    assert (resolved.outcome.confirmation, resolved.outcome.scored) == (status, scored)
    await counted(metrics, status)
    assert sample(metrics, "candidates_confirmed_sum") == scored
    assert sample(metrics, "cache_entries") == (scored == 4)
    if not scored:
        assert resolved.outcome.decision == await alone(engine, caching)
        assert "confirm" not in resolved.stages


async def test_busy_lanes_confirm_nothing(
    sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device, clock: Clock
) -> None:
    """Where a lane is busy for long, messages that have not been encoded come first: the bi-encoder decides."""
    # The long message holds one of two lanes for some 100 s.
    took = (Measured(1, 16, 1e-6), Measured(1, 64, 100.0))
    engine = replace(sure, encoder_took=took, device=device)
    async with serving_of(engine, caching, metrics) as serving:
        long = ask(serving, LONG)
        busy = await device.arrived.get()
        # Time enough to be admitted, and not so much that nobody minds the wait.
        budget = 1.02 * serving.lanes.wait / (1 - RESERVE)
        asking = ask(serving, UNSEEN, clock() + budget)
        (await device.arrived.get()).finish()
        outcome = (await asking).outcome
        assert (outcome.confirmation, outcome.scored) == ("skipped_load", 0)
        assert outcome.decision == outcome.unconfirmed
        await counted(metrics, "skipped_load")
        assert sample(metrics, "cache_entries") == 0
        # With the lane free again, the same message is confirmed.
        busy.finish()
        await long
        device.let_go()
        assert (await serving.pipeline.resolve(UNSEEN, clock() + budget)).outcome.scored == 4


async def test_a_full_queue_confirms_nothing(
    sure: HeldEngine, caching: Settings, metrics: Metrics, clock: Clock
) -> None:
    """Where there is no room for its candidates in the queue, a message is decided without."""
    async with serving_of(sure, caching.model_copy(update={"max_queue": 3}), metrics) as serving:
        outcome = (await serving.pipeline.resolve(UNSEEN, FAR)).outcome
        assert (outcome.confirmation, outcome.scored) == ("skipped_load", 0)
        assert sample(metrics, "cache_entries") == 0


async def test_the_reply_does_not_wait_for_the_cross_encoder(
    sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device, clock: Clock
) -> None:
    """A device that hangs: with the deadline near the bi-encoder's decision is there, in time to be written."""
    engine = replace(sure, confirming=device)
    async with serving_of(engine, caching, metrics) as serving:
        deadline = clock() + 8
        asking = ask(serving, UNSEEN, deadline)
        await device.arrived.get()
        clock.now = deadline - LEAST_OVERHEAD
        outcome = (await asking).outcome
        assert clock() < deadline
        assert (outcome.confirmation, outcome.scored) == ("timed_out", 0)
        assert outcome.decision == outcome.unconfirmed == await alone(sure, caching)
        # The wait was the device's: it is not what the server itself takes after it.
        assert serving.pipeline._due(clock() + 8) == clock() + 8 - LEAST_OVERHEAD
        await counted(metrics, "timed_out")
        assert sample(metrics, "cache_entries") == 0


async def test_time_that_passed_while_encoding_is_gone(
    sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device, clock: Clock
) -> None:
    """What is left when a message has been encoded counts, not what there was when it came."""
    engine = replace(sure, device=device, encoder_took=(), cross_encoder_took=(Measured(1, 32, 3.0),))
    async with serving_of(engine, caching, metrics) as serving:
        asking = ask(serving, UNSEEN, clock() + 100)
        batch = await device.arrived.get()
        clock.now += 98
        batch.finish()
        outcome = (await asking).outcome
        assert (outcome.confirmation, outcome.scored) == ("skipped_budget", 0)


async def test_a_failing_cross_encoder_confirms_nothing(
    sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device
) -> None:
    """What it raises is logged, and the message is decided without; so is the next one, with it if it works again."""
    async with serving_of(replace(sure, confirming=device), caching, metrics) as serving:
        asking = ask(serving, UNSEEN)
        (await device.arrived.get()).fail(RuntimeError("the session broke"))
        outcome = (await asking).outcome
        assert (outcome.confirmation, outcome.scored) == ("failed", 0)
        assert outcome.decision == outcome.unconfirmed
        await counted(metrics, "failed")
        assert sample(metrics, "cache_entries") == 0
        device.let_go()
        assert (await serving.pipeline.resolve(UNSEEN, FAR)).outcome.scored == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_logits_that_are_no_numbers_confirm_nothing(
    tell: Tell, caching: Settings, metrics: Metrics, bad: float
) -> None:
    """A cross-encoder that gives nonsense has failed, even where it is one logit of four."""
    async with serving_of(tell(8.0, -3.0, bad, -3.0), caching, metrics) as serving:
        outcome = (await serving.pipeline.resolve(UNSEEN, FAR)).outcome
        assert (outcome.confirmation, outcome.scored) == ("failed", 0)
        assert outcome.decision == outcome.unconfirmed
        await counted(metrics, "failed")
        assert sample(metrics, "cache_entries") == 0
        assert sample(metrics, "candidates_confirmed_count") == 0


async def test_what_confirmation_cannot_change_is_not_read(
    sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device
) -> None:
    """Outside of the confirmer's band the device hears of no pair, and the outcome is whole, and kept."""
    engine = replace(sure, index=confirming(sure.index, confirm_from=1.01, confirm_to=1.01), confirming=device)
    async with serving_of(engine, caching, metrics) as serving:
        outcome = (await serving.pipeline.resolve(UNSEEN, FAR)).outcome
        assert (outcome.confirmation, outcome.scored) == ("not_needed", 0)
        await counted(metrics, "not_needed")
        assert sample(metrics, "cache_entries") == 1
    assert device.seen == []


async def test_a_phrasing_is_not_read(sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device) -> None:
    """A message that equals a phrasing needs neither of the models."""
    async with serving_of(replace(sure, device=device, confirming=device), caching, metrics) as serving:
        outcome = (await serving.pipeline.resolve("Where is my order?", FAR)).outcome
        assert (outcome.confirmation, outcome.decision.confidence) == ("not_needed", 1.0)
        await counted(metrics, "not_needed")
    assert device.seen == []


async def test_without_a_cross_encoder_nothing_is_confirmed(
    sure: HeldEngine, caching: Settings, metrics: Metrics
) -> None:
    """An index with a confirmer serves without the model too: that is all there is, so the outcome is kept."""
    async with serving_of(replace(sure, cross_encoder=None), caching, metrics) as serving:
        outcome = (await serving.pipeline.resolve(UNSEEN, FAR)).outcome
        assert (outcome.confirmation, outcome.scored) == ("disabled", 0)
        await counted(metrics, "disabled")
        assert sample(metrics, "cache_entries") == 1


async def test_the_same_message_is_read_once(
    sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device
) -> None:
    """Equal pairs in flight share one computation; a message that is cancelled takes nothing from the other."""
    async with serving_of(replace(sure, confirming=device), caching, metrics) as serving:
        first, second = ask(serving, UNSEEN), ask(serving, UNSEEN)
        await until(lambda: sample(metrics, "shared_total", model="cross-encoder") == CONFIRMER.candidates)
        first.cancel()
        device.let_go()
        assert (await second).outcome.scored == CONFIRMER.candidates
    assert len(device.seen) == CONFIRMER.candidates


async def test_pairs_of_a_cancelled_message_are_dropped(
    sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device
) -> None:
    """Those that have not left for the device never do; nothing is counted as answered, or kept."""
    one_by_one = caching.model_copy(update={"max_batch": 1})
    async with serving_of(replace(sure, confirming=device), one_by_one, metrics) as serving:
        asking = ask(serving, UNSEEN)
        for _ in range(serving.lanes.count):
            await device.arrived.get()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert sample(metrics, "dropped_total", model="cross-encoder", cause="cancelled") == 2
        assert sample(metrics, "cache_entries") == 0
    assert len(device.seen) == 2
    assert sample(metrics, "stage_seconds_count", stage="encode") == 0


async def test_closing_does_not_take_what_is_known(
    sure: HeldEngine, caching: Settings, metrics: Metrics, device: Device
) -> None:
    """Whose pairs wait when everything is closed is answered by the bi-encoder alone."""
    one_by_one = caching.model_copy(update={"max_batch": 1})
    async with serving_of(replace(sure, confirming=device), one_by_one, metrics) as serving:
        asking = ask(serving, UNSEEN)
        for _ in range(serving.lanes.count):
            await device.arrived.get()
        closing = asyncio.create_task(serving.close())
        outcome = (await asking).outcome
        assert (outcome.confirmation, outcome.scored) == ("failed", 0)
        assert outcome.decision == outcome.unconfirmed
        assert sample(metrics, "cache_entries") == 0
        device.let_go()
        assert await closing
