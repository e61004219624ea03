"""Guards `server.batching.MicroBatcher`: when a batch leaves, who shares it, and how each of its requests ends.

No thread is involved: a lane looks for work, and ends its batch, when a test says so.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from server.batching import RESERVE, MicroBatcher
from server.budget import FRESH, INITIAL, CostModel
from server.choice import Bounds
from server.errors import DeadlineExceeded, Internal, Overloaded, RequestError, ShuttingDown
from server.telemetry import Metrics
from server.work import Done
from tests.server.fakes import Clock, HandLanes, Steady, echo_all

Batcher = MicroBatcher[str, str]
Asking = asyncio.Task[Done[str]]
FAR = 1e9
# Nothing here takes long; where a test hangs, that is known soon.
pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("clock")]


@pytest.fixture
def lanes(clock: Clock) -> HandLanes:
    """One lane."""
    return HandLanes(clock)


@pytest.fixture
async def batcher(lanes: HandLanes, clock: Clock, metrics: Metrics) -> Batcher:
    """One lane, at most two items a batch and three waiting; on a quick device."""
    return make(lanes, clock, metrics)


def make(
    lanes: HandLanes,
    clock: Clock,
    metrics: Metrics,
    cost: CostModel | None = None,
    *,
    queue: int = 3,
    rows: int = 2,
    tokens: int = 100,
    seconds: float = 1.0,
) -> Batcher:
    """A batcher over lanes."""
    lanes.source = MicroBatcher[str, str](
        lanes.run,
        lanes,
        cost or Steady(batch=0.001),
        length=len,
        key=str.lower,
        clock=clock,
        bounds=Bounds(queue, rows, tokens, seconds),
        metrics=metrics.models["bi-encoder"],
    )
    return lanes.source


def ask(batcher: Batcher, *items: str, deadline: float = FAR) -> Asking:
    """A request for items, and somebody who waits for it."""
    return asyncio.create_task(batcher.wait(batcher.enqueue(items, deadline)))


async def practise(batcher: Batcher, lanes: HandLanes, clock: Clock, *, rows: int, seconds: float) -> None:
    """Let the batcher see for a while that batches of so many items take so long."""
    for _ in range(100):
        asking = ask(batcher, *"abcdefgh"[:rows])
        assert len(lanes.take()) == rows
        clock.now += seconds
        lanes.end()
        await asking
    lanes.seen.clear()
    lanes.wakes.clear()


async def turn() -> None:
    """Let the event loop hand out what there is."""
    for _ in range(5):
        await asyncio.sleep(0)


async def results(*asking: Asking) -> list[list[str]]:
    """What requests came to."""
    return [done.results for done in await asyncio.gather(*asking)]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """A figure of the batcher's model."""
    return metrics.registry.get_sample_value(f"faqwire_{name}", {"model": "bi-encoder", **labels})


# When a batch leaves, and what is in it.


async def test_idle_batcher_sends_at_once(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """There is no timer: with the clock standing still a lane is woken, and the request leaves alone."""
    asking = ask(batcher, "a")
    assert (lanes.wakes, batcher.waiting) == ([1], 1)
    assert lanes.take() == ["a"]
    assert batcher.waiting == 0
    lanes.end()
    assert await asking == Done(["vector of a"], 0.0, 0.0)


async def test_times(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """A request learns how long it waited and how long its batch ran."""
    asking = ask(batcher, "a")
    clock.now += 2
    lanes.take()
    clock.now += 3
    lanes.end()
    assert await asking == Done(["vector of a"], 2.0, 3.0)


async def test_what_arrives_meanwhile_leaves_together(batcher: Batcher, lanes: HandLanes) -> None:
    """While the lane is busy requests wait; when it is free they leave as one batch, bounded in number."""
    asking = [ask(batcher, "a")]
    assert lanes.take() == ["a"]
    asking += [ask(batcher, item) for item in "bcd"]
    lanes.end()
    assert lanes.take() == ["b", "c"]
    lanes.end()
    assert lanes.take() == ["d"]
    lanes.end()
    assert lanes.take() == []
    assert await results(*asking) == [["vector of a"], ["vector of b"], ["vector of c"], ["vector of d"]]


async def test_free_lanes_share_what_waits(clock: Clock, metrics: Metrics) -> None:
    """What two free lanes find is split between them; one that is free alone takes all that fits."""
    lanes = HandLanes(clock, 2)
    batcher = make(lanes, clock, metrics, queue=9, rows=8)
    asking = [ask(batcher, item) for item in "abcd"]
    assert [lanes.take(0), lanes.take(1)] == [["a", "b"], ["c", "d"]]
    asking += [ask(batcher, item) for item in "efgh"]
    lanes.end(0)
    assert lanes.take(0) == ["e", "f", "g", "h"]
    lanes.end(1)
    lanes.end(0)
    await asyncio.gather(*asking)


async def test_as_many_lanes_are_woken_as_there_are_items(clock: Clock, metrics: Metrics) -> None:
    """A request for several items can be split among several lanes, so several are told."""
    lanes = HandLanes(clock, 2)
    batcher = make(lanes, clock, metrics)
    asking = ask(batcher, "a", "b", "c")
    assert (lanes.wakes, lanes.asleep) == ([3], set())
    assert [lanes.take(0), lanes.take(1)] == [["a", "b"], ["c"]]
    lanes.end(1)
    await turn()
    assert not asking.done()
    lanes.end(0)
    assert (await asking).results == ["vector of a", "vector of b", "vector of c"]


async def test_earliest_deadline_leads(batcher: Batcher, lanes: HandLanes) -> None:
    """What has least time goes first, whatever came before."""
    asking = [
        ask(batcher, item, deadline=deadline) for item, deadline in [("late", 9e6), ("soon", 8e6), ("sooner", 7e6)]
    ]
    assert batcher.urgency == 7e6
    assert lanes.take()[0] == "sooner"
    lanes.end()
    lanes.take()
    lanes.end()
    await asyncio.gather(*asking)
    assert batcher.urgency is None


async def test_items_of_one_request_in_several_batches(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """A request for more than a batch holds ends with the last of its batches, its results in the order of its items.

    It was queued until the last of them left, and ran from then on.
    """
    asking = ask(batcher, "a", "bb", "c")
    clock.now += 1
    assert lanes.take() == ["a", "c"]  # nearest in length
    clock.now += 2
    lanes.end()
    clock.now += 4
    assert lanes.take() == ["bb"]
    clock.now += 8
    await turn()
    assert not asking.done()
    lanes.end()
    assert await asking == Done(["vector of a", "vector of bb", "vector of c"], 7.0, 8.0)


# Admission.


async def test_full_queue_refuses(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """What comes on top of a full queue is refused at once, with a time to come back; the others go on."""
    asking = [ask(batcher, item) for item in "abc"]
    with pytest.raises(Overloaded, match="3 requests are waiting") as caught:
        batcher.enqueue(["d"], FAR)
    assert caught.value.queue_full
    assert caught.value.retry_after_ms is not None
    assert caught.value.retry_after_ms >= 1
    assert value(metrics, "queue_length") == 3
    for _ in range(2):
        lanes.take()
        lanes.end()
    await asyncio.gather(*asking)
    assert lanes.seen == ["a", "b", "c"]


async def test_all_or_nothing(batcher: Batcher, lanes: HandLanes) -> None:
    """Of a request for more than there is room for, nothing waits; one that fits exactly does."""
    asking = ask(batcher, "a")
    with pytest.raises(Overloaded):
        batcher.enqueue(["b", "c", "d"], FAR)
    assert batcher.waiting == 1
    asking_too = ask(batcher, "b", "c")
    assert batcher.waiting == 3
    lanes.take()
    lanes.end()
    lanes.take()
    lanes.end()
    assert await results(asking, asking_too) == [["vector of a"], ["vector of b", "vector of c"]]


async def test_what_is_in_flight_needs_no_room(batcher: Batcher, lanes: HandLanes) -> None:
    """A full queue takes what waits in it already, or runs: there is no more to do for it."""
    asking = [ask(batcher, "r")]
    lanes.take()
    asking += [ask(batcher, item) for item in "abc"]
    asking += [ask(batcher, item) for item in "ra"]
    assert batcher.waiting == 3
    lanes.end()
    for _ in range(2):
        lanes.take()
        lanes.end()
    await asyncio.gather(*asking)
    assert lanes.seen == ["r", "a", "b", "c"]


async def test_what_cannot_be_done_in_time_is_refused(clock: Clock, lanes: HandLanes, metrics: Metrics) -> None:
    """Behind a batch that is running a small budget is refused at once; what it is told means something."""
    batcher = make(lanes, clock, metrics, Steady(batch=0.08))
    first = ask(batcher, "a")
    lanes.take()
    with pytest.raises(Overloaded) as caught:
        batcher.enqueue(["b"], clock() + 0.1)
    assert not caught.value.queue_full
    assert caught.value.retry_after_ms is not None
    assert caught.value.retry_after_ms >= 80, "the lane will not even be free by then"
    clock.now += 0.08
    lanes.end()
    again = ask(batcher, "b", deadline=clock() + 0.1)
    assert lanes.take() == ["b"]
    lanes.end()
    await asyncio.gather(first, again)


async def test_whoever_comes_back_when_told_is_taken(clock: Clock, lanes: HandLanes, metrics: Metrics) -> None:
    """When nothing else comes, a refused request that comes back after its time is taken at once."""
    batcher = make(lanes, clock, metrics, Steady(batch=0.08), queue=99)
    await practise(batcher, lanes, clock, rows=2, seconds=0.08)
    asking: list[Asking] = []
    refusal = None
    while refusal is None:
        try:
            asking.append(ask(batcher, f"{len(asking)}", deadline=clock() + 1))
        except Overloaded as exc:
            refusal = exc
    assert not refusal.queue_full
    assert refusal.retry_after_ms is not None
    back = clock() + refusal.retry_after_ms / 1000
    while lanes.take():
        clock.now += 0.08
        lanes.end()
    await asyncio.gather(*asking)
    assert clock.now <= back
    clock.now = back
    last = ask(batcher, "the last", deadline=clock() + 1)
    assert lanes.take() == ["the last"]
    lanes.end()
    await last


async def test_idle_device_takes_what_fits(clock: Clock, lanes: HandLanes, metrics: Metrics) -> None:
    """On an idle device a request is taken if its own batch fits into its time, and refused if it does not."""
    batcher = make(lanes, clock, metrics, Steady(batch=0.08))
    with pytest.raises(Overloaded):
        batcher.enqueue(["a"], clock() + 0.079)
    asking = ask(batcher, "a", deadline=clock() + 0.081)
    lanes.take()
    lanes.end()
    await asking


async def test_lanes_share_what_is_predicted(clock: Clock, metrics: Metrics) -> None:
    """What is too much for one lane in its time is not for two."""
    cost, items = Steady(token=0.01), ["a" * 8, "b" * 8]
    one, two = HandLanes(clock, 1), HandLanes(clock, 2)
    with pytest.raises(Overloaded):
        make(one, clock, metrics, cost).enqueue(items, clock() + 0.1)
    asking = ask(make(two, clock, metrics, cost), *items, deadline=clock() + 0.1)
    for lane in range(2):
        assert len(two.take(lane)) == 1
        two.end(lane)
    await asking


async def test_device_that_never_ran_is_taken_for_slow(clock: Clock, lanes: HandLanes, metrics: Metrics) -> None:
    """Before anything ran, what it will take is guessed high: a small budget is refused until it is known better."""
    cost = CostModel()
    batcher = make(lanes, clock, metrics, cost)
    patience = 0.9 * INITIAL * 32
    with pytest.raises(Overloaded):
        batcher.enqueue(["a" * 32], clock() + patience)
    for _ in range(50):
        cost.learn(1, 32, patience / 2, clock())
    asking = ask(batcher, "a" * 32, deadline=clock() + patience)
    lanes.take()
    lanes.end()
    await asking


async def test_who_waits_for_others_gets_some_slack(clock: Clock, lanes: HandLanes, metrics: Metrics) -> None:
    """Where there is a queue part of the time is kept free: whoever promises all of it cannot group by length."""
    batcher = make(lanes, clock, metrics, Steady(batch=0.08), seconds=0.08)
    first = ask(batcher, "a")
    lanes.take()
    with pytest.raises(Overloaded):
        batcher.enqueue(["b"], clock() + 0.161)
    second = ask(batcher, "b", deadline=clock() + 0.161 / (1 - RESERVE))
    lanes.end()
    lanes.take()
    lanes.end()
    await asyncio.gather(first, second)


async def test_nobody_is_made_late_by_who_comes_later(clock: Clock, lanes: HandLanes, metrics: Metrics) -> None:
    """A more urgent request is refused where those that wait would miss their deadlines for it, and else goes first."""
    batcher = make(lanes, clock, metrics, Steady(batch=0.08), queue=9, rows=1, seconds=0.1)
    await practise(batcher, lanes, clock, rows=1, seconds=0.08)
    waiting = [ask(batcher, name, deadline=clock() + 0.35) for name in "abc"]
    await turn()
    with pytest.raises(Overloaded):
        batcher.enqueue(["urgent", "too"], clock() + 0.3)
    waiting.pop().cancel()
    await turn()
    waiting.append(ask(batcher, "urgent", "too", deadline=clock() + 0.3))
    for item in ("urgent", "too", "a", "b"):
        assert lanes.take() == [item]
        clock.now += 0.08
        lanes.end()
    await asyncio.gather(*waiting)


async def test_what_is_taken_at_twice_the_capacity_is_done_in_time(
    clock: Clock, lanes: HandLanes, metrics: Metrics
) -> None:
    """Twice as much as the device can do, of two budgets: what is taken is done in time, and the device never rests."""
    batcher = make(lanes, clock, metrics, Steady(batch=0.08), queue=99, rows=4, seconds=0.08)
    began = free_at = clock.now
    taken: list[Asking] = []

    async def advance(until: float) -> None:
        nonlocal free_at
        while free_at <= until and (lanes.running or batcher.waiting):
            clock.now = max(clock.now, free_at)
            if lanes.running:
                lanes.end()
                await turn()
            if lanes.take():
                free_at = clock.now + 0.08
        clock.now = max(clock.now, until)

    for number in range(400):
        await advance(began + number * 0.01)
        try:
            taken.append(ask(batcher, f"{number}", deadline=clock() + (1 if number % 3 else 3)))
        except Overloaded:
            assert lanes.running, "the device was idle"
    await advance(began + 100)
    ends = await asyncio.gather(*taken, return_exceptions=True)
    assert not [end for end in ends if isinstance(end, RequestError)]
    assert len(taken) >= 195, "it could have done 200, and those that waited at the end"


# Deadlines.


async def test_expired_request_never_reaches_the_device(
    batcher: Batcher, lanes: HandLanes, clock: Clock, metrics: Metrics
) -> None:
    """A deadline that passes in the queue ends its request then, without waiting for the batch that is running."""
    first = ask(batcher, "a")
    lanes.take()
    second = ask(batcher, "b", deadline=1010.0)
    clock.now = 1010.5
    with pytest.raises(DeadlineExceeded, match="before the model ran"):
        await second
    assert batcher.waiting == 0
    assert value(metrics, "dropped_total", cause="expired") == 1
    assert value(metrics, "queue_length") == 0
    lanes.end()
    assert lanes.take() == []
    await first
    assert lanes.seen == ["a"]


async def test_a_lane_does_not_wait_for_the_event_loop(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """What is past its deadline is left behind also where the event loop has not been able to end it yet."""
    late, other = ask(batcher, "a", deadline=1010.0), ask(batcher, "b")
    clock.now = 1010.0
    assert lanes.take() == ["b"]
    with pytest.raises(DeadlineExceeded, match="before the model ran"):
        await late
    lanes.end()
    await other


async def test_deadline_in_the_past_never_reaches_the_device(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """A request that is late when it comes ends as late, also where the lane is free."""
    with pytest.raises(DeadlineExceeded):
        batcher.enqueue(["a"], clock.now)
    assert (lanes.take(), lanes.wakes) == ([], [])


async def test_deadline_is_kept_while_the_batch_runs(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """A deadline that passes on the device ends its request then; what the device gives later is dropped."""
    asking = ask(batcher, "a", deadline=1010.0)
    lanes.take()
    clock.now = 1010.5
    with pytest.raises(DeadlineExceeded, match="while the model ran"):
        await asking
    lanes.end()
    follower = ask(batcher, "a")
    assert lanes.take() == ["a"]
    lanes.end()
    assert await results(follower) == [["vector of a"]]


async def test_an_ended_request_leaves_no_timer(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """Nothing happens at the deadline of a request that has ended."""
    request = batcher.enqueue(["a"], 1010.0)
    lanes.take()
    lanes.end()
    await batcher.wait(request)
    assert request.timer.cancelled()


# Withdrawals.


async def test_cancelled_request_never_reaches_the_device(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """A request whose waiter has left gives up its place in the queue."""
    first, second, third = (ask(batcher, item) for item in "abc")
    await turn()
    second.cancel()
    await turn()
    assert second.cancelled()
    assert batcher.waiting == 2
    assert value(metrics, "dropped_total", cause="cancelled") == 1
    assert lanes.take() == ["a", "c"]
    lanes.end()
    await asyncio.gather(first, third)


async def test_withdrawn_before_anybody_waits(batcher: Batcher, lanes: HandLanes) -> None:
    """A request can be dropped by whoever made it, before it is waited for; and again."""
    request = batcher.enqueue(["a", "b"], FAR)
    for _ in range(2):
        batcher.withdraw(request)
        assert (batcher.waiting, lanes.take()) == (0, [])
    assert request.timer.cancelled()


async def test_withdrawn_while_it_runs(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """What is on the device cannot be called back: its result is dropped, or is for who asks for the same by then."""
    request = batcher.enqueue(["a"], FAR)
    lanes.take()
    batcher.withdraw(request)
    assert value(metrics, "dropped_total", cause="cancelled") == 0
    other = ask(batcher, "A")
    lanes.end()
    assert await results(other) == [["vector of a"]]
    assert lanes.take() == []


async def test_withdrawing_what_has_ended_does_nothing(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """A request that has ended, well or not, can be withdrawn, and no exception is left behind unseen."""
    well, failed = batcher.enqueue(["a"], FAR), batcher.enqueue(["b"], FAR)
    lanes.take()
    lanes.answer = lambda _: []
    lanes.end()
    for request in (well, failed):
        batcher.withdraw(request)
    assert value(metrics, "dropped_total", cause="cancelled") == 0


# Sharing.


async def test_equal_items_share_one_computation(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """Two that ask for the same have it computed once, and each gets the result."""
    one, other = ask(batcher, "a"), ask(batcher, "A")
    assert batcher.waiting == 1
    assert lanes.take() == ["a"]
    lanes.end()
    assert await results(one, other) == [["vector of a"]] * 2
    assert value(metrics, "shared_total") == 1


async def test_equal_items_within_one_request(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """A request may ask for the same thing twice: it gets it twice, computed once."""
    asking = ask(batcher, "a", "b", "A")
    assert batcher.waiting == 2
    assert lanes.take() == ["a", "b"]
    lanes.end()
    assert await results(asking) == [["vector of a", "vector of b", "vector of a"]]
    assert value(metrics, "shared_total") == 1


async def test_one_of_two_waiters_leaves(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """One waiter's cancellation is not the other's, whoever came first."""
    for leaves in range(2):
        pair = [ask(batcher, "a"), ask(batcher, "a")]
        await turn()
        pair.pop(leaves).cancel()
        await turn()
        assert lanes.take() == ["a"]
        lanes.end()
        assert await results(*pair) == [["vector of a"]]
    assert value(metrics, "dropped_total", cause="cancelled") == 0


async def test_both_waiters_leave(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """What nobody waits for any more never reaches the device; the next one who asks has it computed."""
    pair = [ask(batcher, "a"), ask(batcher, "a")]
    await turn()
    for asking in pair:
        asking.cancel()
    await turn()
    assert (batcher.waiting, lanes.take()) == (0, [])
    assert value(metrics, "dropped_total", cause="cancelled") == 1
    third = ask(batcher, "a")
    assert lanes.take() == ["a"]
    lanes.end()
    await third


async def test_one_waiters_deadline_passes(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """The deadline of one that shares a computation ends that one; the other gets its result later."""
    patient, hasty = ask(batcher, "a"), ask(batcher, "a", deadline=1010.0)
    clock.now = 1010.5
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert batcher.waiting == 1
    assert batcher.urgency == FAR
    assert lanes.take() == ["a"]
    lanes.end()
    assert await results(patient) == [["vector of a"]]


async def test_who_was_passed_over_for_a_late_waiter_is_not_forgotten(
    batcher: Batcher, lanes: HandLanes, clock: Clock
) -> None:
    """A lane that finds one waiter late, before the event loop does, is woken again for the other."""
    patient, hasty = ask(batcher, "a"), ask(batcher, "a", deadline=1010.0)
    clock.now = 1010.5
    lanes.take()
    with pytest.raises(DeadlineExceeded):
        await hasty
    if not lanes.running:
        assert not lanes.asleep, "nobody will ever look again"
        assert lanes.take() == ["a"]
    lanes.end()
    assert await results(patient) == [["vector of a"]]


async def test_joining_what_runs(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """Who asks for what is on the device already waits for the rest of it alone."""
    first = ask(batcher, "a")
    clock.now += 1
    lanes.take()
    clock.now += 2
    second = ask(batcher, "a")
    assert batcher.waiting == 0
    clock.now += 4
    lanes.end()
    assert await first == Done(["vector of a"], 1.0, 6.0)
    assert await second == Done(["vector of a"], 0.0, 4.0)
    assert lanes.seen == ["a"]


async def test_joining_what_runs_with_more(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """A request can wait for what runs and for what waits; it was queued until the last of it left."""
    first = ask(batcher, "a")
    lanes.take()
    clock.now += 1
    second = ask(batcher, "a", "b")
    clock.now += 2
    lanes.end()
    lanes.take()
    clock.now += 4
    lanes.end()
    assert await results(first) == [["vector of a"]]
    assert await second == Done(["vector of a", "vector of b"], 2.0, 4.0)


async def test_who_joins_may_be_late_alone(batcher: Batcher, lanes: HandLanes, clock: Clock) -> None:
    """The deadline of one that joined passes while the device is at it; the first one gets the result."""
    first = ask(batcher, "a")
    lanes.take()
    second = ask(batcher, "a", deadline=1010.0)
    clock.now = 1010.5
    with pytest.raises(DeadlineExceeded, match="while the model ran"):
        await second
    lanes.end()
    await first


async def test_what_has_ended_is_computed_again(batcher: Batcher, lanes: HandLanes) -> None:
    """Only what is in flight is shared: there is no cache here."""
    for _ in range(2):
        asking = ask(batcher, "a")
        assert lanes.take() == ["a"]
        lanes.end()
        await asking


async def test_who_asks_again_is_not_dropped_with_the_first(
    batcher: Batcher, lanes: HandLanes, metrics: Metrics
) -> None:
    """An equal item that comes before the first one's waiter has seen its result is a new one, and stays."""
    first = ask(batcher, "a")
    await turn()
    lanes.take()
    lanes.end()
    second = ask(batcher, "a")
    await first
    assert batcher.waiting == 1
    assert lanes.take() == ["a"]
    lanes.end()
    assert await results(second) == [["vector of a"]]
    assert value(metrics, "dropped_total", cause="cancelled") == 0


async def test_who_joins_brings_the_deadline_forward(batcher: Batcher, lanes: HandLanes) -> None:
    """What is shared is as urgent as its most urgent waiter, and no more once that one has left."""
    patient, other = ask(batcher, "a"), ask(batcher, "bb", deadline=9e6)
    assert batcher.urgency == 9e6
    hasty = ask(batcher, "a", deadline=8e6)
    assert batcher.urgency == 8e6
    await turn()
    hasty.cancel()
    await turn()
    assert batcher.urgency == 9e6
    assert lanes.take() == ["bb", "a"]
    lanes.end()
    await asyncio.gather(patient, other)


# Failures.


async def test_exception_ends_its_own_batch_alone(
    batcher: Batcher, lanes: HandLanes, logs: list[dict[str, Any]]
) -> None:
    """What fails on the device ends the requests of that batch as internal, is logged once, and nothing else."""
    first, *others = (ask(batcher, item) for item in "abB")
    lanes.answer = broken(RuntimeError("the session broke"))
    lanes.take()
    last = ask(batcher, "c")
    lanes.end()
    ends = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(end) for end in ends] == [Internal] * 3
    assert [(log["event"], log["requests"], str(log["exc_info"])) for log in logs] == [
        ("batch failed", 2, "the session broke")
    ]
    lanes.answer = lambda items: ["well"] * len(items)
    assert lanes.take() == ["c"]
    lanes.end()
    assert await results(last) == [["well"]]


def broken(problem: BaseException) -> Any:
    """A device that raises."""

    def answer(_: Sequence[str]) -> Sequence[str]:
        raise problem

    return answer


@pytest.mark.parametrize(
    "problem", [StopIteration("leaked"), SystemExit(3), KeyboardInterrupt(), MemoryError(), asyncio.CancelledError()]
)
async def test_strange_exceptions_do_not_lose_the_lane(
    batcher: Batcher, lanes: HandLanes, problem: BaseException
) -> None:
    """Exceptions that asyncio or threads treat in their own way end a batch as any other does."""
    lanes.answer = broken(problem)
    asking = ask(batcher, "a")
    lanes.take()
    lanes.end()
    with pytest.raises(Internal):
        await asking


@pytest.mark.parametrize("given", [[], ["one", "too many"]])
async def test_wrong_number_of_results(batcher: Batcher, lanes: HandLanes, given: list[str]) -> None:
    """A device that gives more or fewer results than items has failed; nobody gets another's result."""
    lanes.answer = lambda _: given
    asking = ask(batcher, "a")
    lanes.take()
    lanes.end()
    with pytest.raises(Internal):
        await asking


async def test_rest_of_a_failed_request(batcher: Batcher, lanes: HandLanes) -> None:
    """When part of a request has failed its other parts never reach the device, unless somebody else needs them."""
    failing, other = ask(batcher, "a", "b", "cc"), ask(batcher, "b")
    lanes.answer = broken(RuntimeError("the session broke"))
    assert lanes.take() == ["a", "b"]
    lanes.end()
    again = ask(batcher, "b")
    for asking in (failing, other):
        with pytest.raises(Internal):
            await asking
    lanes.answer = lambda items: ["well"] * len(items)
    assert lanes.take() == ["b"]
    lanes.end()
    assert await results(again) == [["well"]]
    assert lanes.seen == ["a", "b", "b"]


async def test_batches_teach_what_they_take(
    lanes: HandLanes, clock: Clock, metrics: Metrics, logs: list[dict[str, Any]]
) -> None:
    """A batch that ran says what such batches take; one that failed says nothing."""
    cost = CostModel()
    batcher, guess = make(lanes, clock, metrics, cost), cost.mean(1, 1)
    for answer, expected in ((broken(RuntimeError("the session broke")), guess), (echo_all, 5)):
        lanes.answer = answer
        asking = ask(batcher, "a")
        lanes.take()
        clock.now += 5
        lanes.end()
        await asyncio.gather(asking, return_exceptions=True)
        assert cost.mean(1, 1) == expected
    await turn()
    assert value(metrics, "batch_seconds_count") == 1


# Closing.


async def test_close_refuses_what_waits_and_what_comes(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """Closing ends what waits at once and lets what runs end in its own way; nothing more leaves."""
    running = ask(batcher, "a")
    lanes.take()
    waiting, partly, sharing = ask(batcher, "b"), ask(batcher, "a", "c"), ask(batcher, "a")
    batcher.close()
    for asking in (waiting, partly):
        with pytest.raises(ShuttingDown):
            await asking
    with pytest.raises(ShuttingDown):
        batcher.enqueue(["d"], FAR)
    with pytest.raises(ShuttingDown):
        batcher.enqueue(["a"], FAR)
    assert value(metrics, "dropped_total", cause="closing") == 2
    assert value(metrics, "queue_length") == 0
    lanes.end()
    assert await results(running, sharing) == [["vector of a"]] * 2
    assert lanes.take() == []
    assert lanes.seen == ["a"]


async def test_close_again(batcher: Batcher, lanes: HandLanes, metrics: Metrics) -> None:
    """Closing is done as often as anybody likes."""
    asking = ask(batcher, "a")
    batcher.close()
    batcher.close()
    with pytest.raises(ShuttingDown):
        await asking
    assert value(metrics, "dropped_total", cause="closing") == 1


# What lanes do while the event loop is in the middle of something, and the other way round.


class Meddling(float):
    """A deadline; whoever compares it for the n-th time is interrupted by a lane that looks for work."""

    countdown = 0
    look: Callable[[], object]

    def __gt__(self, other: float) -> bool:
        self.countdown -= 1
        if self.countdown == 0:
            self.look()
        return float(self) > other


@pytest.mark.parametrize("comparison", [1, 2, 3, 4])
async def test_a_lane_takes_while_a_request_is_admitted(
    clock: Clock, lanes: HandLanes, metrics: Metrics, comparison: int
) -> None:
    """What waits may leave while it is looked through for what a new request would make late."""
    batcher = make(lanes, clock, metrics, queue=9)
    deadline = Meddling(FAR)
    deadline.look = lanes.take
    asking = [ask(batcher, item, deadline=deadline) for item in "abc"]
    deadline.countdown = comparison
    asking.append(ask(batcher, "d", deadline=8e6))
    assert lanes.running
    lanes.end()
    lanes.take()
    lanes.end()
    assert await results(*asking) == [["vector of a"], ["vector of b"], ["vector of c"], ["vector of d"]]


async def test_a_request_is_withdrawn_and_made_again_while_a_lane_chooses(
    clock: Clock, lanes: HandLanes, metrics: Metrics
) -> None:
    """A lane that has chosen what is withdrawn then, and asked for again, runs it for the new request."""

    class Interrupted(Steady):
        def mean(self, rows: int, tokens: int) -> float:
            if again:
                batcher.withdraw(again.pop())
                asking.append(ask(batcher, "a"))
            return super().mean(rows, tokens)

    again: list[Any] = []
    batcher = make(lanes, clock, metrics, Interrupted(batch=0.001))
    asking = [ask(batcher, "b")]
    again.append(batcher.enqueue(["a"], FAR))
    assert sorted(lanes.take()) == ["a", "b"]
    lanes.end()
    assert await results(*asking) == [["vector of b"], ["vector of a"]]
    assert batcher.waiting == 0


async def test_all_is_withdrawn_while_a_lane_chooses(clock: Clock, lanes: HandLanes, metrics: Metrics) -> None:
    """A lane that has chosen what is withdrawn then has nothing to run."""

    class Interrupted(Steady):
        def mean(self, rows: int, tokens: int) -> float:
            for request in leaving:
                batcher.withdraw(request)
            return super().mean(rows, tokens)

    leaving: list[Any] = []
    batcher = make(lanes, clock, metrics, Interrupted(batch=0.001))
    leaving += [batcher.enqueue([item], FAR) for item in "ab"]
    assert lanes.take() == []


async def test_a_lane_takes_while_the_batcher_closes(
    batcher: Batcher, lanes: HandLanes, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a lane takes while the queue is being emptied still runs and ends well; the rest is refused."""
    dropped = metrics.models["bi-encoder"].dropped["closing"]
    monkeypatch.setattr(dropped, "inc", lambda: None if lanes.running else lanes.take())
    asking = [ask(batcher, item) for item in "abc"]
    batcher.close()
    assert lanes.running
    lanes.end()
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(end) for end in ends] == [ShuttingDown, Done, Done]
    assert lanes.take() == []


# What lanes and operators see.


async def test_load(clock: Clock, lanes: HandLanes, metrics: Metrics) -> None:
    """What waits is worth the seconds that one lane needs for it, in such batches as it will make."""
    batcher = make(lanes, clock, metrics, Steady(batch=0.08), queue=9)
    await practise(batcher, lanes, clock, rows=2, seconds=0.08)
    assert batcher.load == 0
    asking = [ask(batcher, item) for item in "abcde"]
    assert batcher.load == pytest.approx(0.2)
    lanes.take()
    assert batcher.load == pytest.approx(0.12)
    batcher.close()
    assert batcher.load == 0
    lanes.end()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_metrics_of_a_batch(lanes: HandLanes, clock: Clock, metrics: Metrics) -> None:
    """A batch that ran is recorded: items, tokens, padding, seconds, how wrong the prediction was, and the waits."""
    batcher = make(lanes, clock, metrics, Steady(batch=0.5))
    asking = [ask(batcher, "a" * 6)]
    clock.now += 1
    asking += [ask(batcher, "b" * 8)]
    clock.now += 2
    lanes.take()
    clock.now += 1
    lanes.end()
    await asyncio.gather(*asking)
    await turn()
    expected = {
        "batch_rows_sum": 2,
        "batch_tokens_sum": 16,
        "padding_ratio_sum": 0.125,
        "batch_seconds_sum": 1,
        "cost_error_ratio_sum": 0.5,
        "queue_seconds_count": 2,
        "queue_seconds_sum": 5,
        "queue_length": 0,
    }
    assert {name: value(metrics, name) for name in expected} == expected


async def test_idle_device_is_tried_again(lanes: HandLanes, clock: Clock, metrics: Metrics) -> None:
    """What once took too long is refused while that is news; on an idle device it is tried again a second later."""
    batcher = make(lanes, clock, metrics, cost=CostModel())
    for _ in range(20):
        batcher.cost.learn(1, 1, 50.0, clock.now)
    with pytest.raises(Overloaded) as refused:
        batcher.enqueue(["a"], clock.now + 10)
    assert refused.value.retry_after_ms == 1000 * FRESH
    clock.now += FRESH
    request = batcher.enqueue(["a"], clock.now + 10)
    assert lanes.take() == ["a"]
    lanes.end()
    assert (await batcher.wait(request)).results == echo_all(["a"])
