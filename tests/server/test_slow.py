"""Guards `server.slow`: a message that took long is logged with where its time went, and an overload not too often."""

import asyncio
from typing import Any

import pytest

from server.ended import Ended
from server.messages import Cancelled, Error
from server.settings import Settings
from server.slow import LINES, WINDOW_SECONDS, SlowLog
from tests.server.conftest import Events, ServerFactory
from tests.server.fakes import Clock, Device
from tests.server.raw import UNSEEN, dial


def ended(seconds: float, request_id: str = "1") -> Ended:
    """An ask that was cancelled after so many seconds."""
    return Ended("c", Cancelled(request_id), 0.0, seconds, seconds, 1.0)


def slow(logs: Events) -> Events:
    """The lines about slow messages."""
    return [event for event in logs if event["event"] == "slow message"]


@pytest.fixture
async def passing(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The ends of windows that have been begun: calling one ends it."""
    windows: list[Any] = []

    def call_later(_: float, turn: Any) -> asyncio.TimerHandle:
        windows.append(turn)
        return asyncio.TimerHandle(0.0, turn, (), asyncio.get_running_loop())

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    return windows


async def test_only_slow_ones(logs: Events) -> None:
    """What took less than it may is not slow; what took as long is."""
    log = SlowLog(0.25)
    assert not log.admits(ended(0.2499))
    assert log.admits(ended(0.25))
    log.close()
    assert not logs


async def test_an_overload_does_not_fill_the_disk(logs: Events, passing: list[Any], clock: Clock) -> None:
    """Of many at once the first few have lines, the others are counted in one; then it begins anew."""
    log = SlowLog(0.1)
    for round_ in range(2):
        admitted = [log.admits(ended(1.0)) for _ in range(1000)]
        assert admitted == [True] * LINES + [False] * (1000 - LINES)
        assert len(passing) == round_ + 1
        clock.now += WINDOW_SECONDS
        passing[-1]()
    assert [(e["event"], e["log_level"], e["count"], e["seconds"]) for e in logs] == [
        ("more messages were slow", "warning", 1000 - LINES, WINDOW_SECONDS)
    ] * 2


async def test_few_have_no_summary(logs: Events, passing: list[Any]) -> None:
    """Where every slow message has had its line there is nothing to add."""
    log = SlowLog(0.1)
    assert all(log.admits(ended(1.0)) for _ in range(LINES))
    passing[-1]()
    log.close()
    assert not logs


async def test_what_is_withheld_is_told_at_the_end(logs: Events, clock: Clock) -> None:
    """A server that stops says how many lines it owes."""
    log = SlowLog(0.1)
    for _ in range(LINES + 3):
        log.admits(ended(1.0))
    clock.now += 2.5
    log.close()
    log.close()
    assert [(event["count"], event["seconds"]) for event in logs] == [(3, 2.5)]


async def test_an_error_has_its_code(logs: Events) -> None:
    """A message that ended badly says how; what does not apply is null."""
    log = SlowLog(0.1)
    log.log(Ended("c", Error("7", "overloaded", "x", retryable=True, retry_after_ms=5), 1.0, 1.4, 1.5, 2.0), "a" * 32)
    [event] = slow(logs)
    assert {name: value for name, value in event.items() if name not in {"event", "log_level"}} == {
        "connection": "c",
        "id": "7",
        "total_ms": 500,
        "budget_ms": 1000,
        "outcome": "error",
        "code": "overloaded",
        "decision": None,
        "confirmation": None,
        "stages_ms": {"write": 100},
        "waiting": None,
        "trace": "a" * 32,
    }


async def test_a_slow_message_over_a_socket(
    start_held: ServerFactory, device: Device, logs: Events, clock: Clock
) -> None:
    """The line has the ids, what was decided, what waited, and the stage that was slow; not the text."""
    async with start_held(slow_ms=300) as server, dial(server) as client:
        lanes = server._engine.encoder.sessions
        await client.occupy(device, lanes)
        await client.ask("before", f"{UNSEEN} xylophone")
        await client.ask("mine", f"{UNSEEN} zebra", budget_ms=2000)
        await client.flush()
        clock.now += 0.5
        device.let_go()
        replies = {reply["id"]: reply for reply in [await client.receive() for _ in range(lanes + 2)]}
        await client.flush()
        events = {event["id"]: event for event in slow(logs)}
        assert events.keys() == replies.keys()
        mine = events["mine"]
        [connection] = server.reception.connections
        assert mine["connection"] == connection._id
        assert (mine["decision"], mine["confirmation"]) == (replies["mine"]["decision"], "disabled")
        assert (mine["total_ms"], mine["budget_ms"], mine["waiting"]) == (500, 2000, 1)
        assert mine["stages_ms"]["queue"] == 500
        assert set(mine["stages_ms"]) == {"tokenize", "queue", "encode", "search", "decide", "write"}
        assert events["lane 0"]["stages_ms"]["queue"] == 0
        assert events["lane 0"]["stages_ms"]["encode"] + events["lane 0"]["stages_ms"]["search"] >= 500
    assert "xylophone" not in str(logs)
    assert "zebra" not in str(logs)


@pytest.mark.parametrize(("slow_ms", "lines"), [(None, 0), (Settings.model_fields["slow_ms"].default, 1)])
async def test_off(
    start_held: ServerFactory, device: Device, logs: Events, clock: Clock, slow_ms: int | None, lines: int
) -> None:
    """Where it is off nothing is slow; by default 250 milliseconds are."""
    async with start_held(slow_ms=slow_ms) as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        await device.arrived.get()
        clock.now += 0.25
        device.let_go()
        await client.receive()
        await client.flush()
    assert len(slow(logs)) == lines
