"""Guards `server.pace`, alone and over real sockets: too many messages are refused, and a flood ends the connection."""

import pytest
from websockets.exceptions import ConnectionClosedError

from server.close_codes import TOO_FAST
from server.pace import FLOOD, Pace
from tests.server.conftest import ServerFactory
from tests.server.fakes import Device
from tests.server.raw import UNSEEN, dial
from tests.server.test_counting import scraped

# So slow that a test's connection has its burst and nothing more.
SLOW = 0.01


def test_a_burst_and_then_the_rate() -> None:
    """The burst passes at once; whoever waits as long as a refusal says passes again, once."""
    pace, now = Pace(2.0, 5, 100.0), 100.0
    assert [pace.check(now) for _ in range(5)] == [None] * 5
    refusal = pace.check(now)
    assert refusal is not None
    assert refusal.retry_after_ms == 500
    now += refusal.retry_after_ms / 1000
    assert pace.check(now) is None
    assert pace.check(now) is not None
    assert not pace.flooding


def test_a_flood_is_what_heeds_no_refusal() -> None:
    """So many times the burst may be refused at once, and not one more; so many times the rate is for ever."""
    at_once = Pace(2.0, 5, 0.0)
    flooding = []
    for _ in range(5 + FLOOD * 5 + 1):
        at_once.check(0.0)
        flooding.append(at_once.flooding)
    assert flooding == [False] * (5 + FLOOD * 5) + [True]
    steady = Pace(2.0, 5, 0.0)
    for number in range(1000):
        steady.check(number / (FLOOD * 2.0))
    assert not steady.flooding


async def test_refusals(start_held: ServerFactory, device: Device) -> None:
    """Whatever comes too fast is refused under its own id, but never under that of a question in flight."""
    async with (
        start_held(message_burst=1, messages_per_second=SLOW, metrics_port=0) as server,
        dial(server) as client,
    ):
        await client.ask("first", UNSEEN)
        batch = await device.arrived.get()
        for message in (
            {"type": "ask", "id": "second", "text": UNSEEN},
            {"type": "ask", "id": "first", "text": UNSEEN},
            {"type": "cancel", "id": "first"},
            {"type": "suggest", "id": "s", "text": "wh"},
            {"type": "ping", "id": "p"},
            {"type": "hello"},
            {"type": "shout", "id": "x"},
        ):
            await client.send(**message)
        errors = [await client.receive() for _ in range(7)]
        assert {(error["code"], error["retryable"]) for error in errors} == {("rate_limited", True)}
        assert [error["id"] for error in errors] == ["second", None, None, "s", "p", None, "x"]
        assert all(error["retry_after_ms"] > 0 for error in errors)
        value = await scraped(server)
        assert value("refusals_total", reason="message_rate") == 7
        assert value("message_seconds_count", type="error") == 1
        batch.finish()
        assert (await client.receive())["id"] == "first"


async def test_a_flood_ends_its_connection(start_server: ServerFactory) -> None:
    """A client that goes on for long after it was refused is closed; it may come back later, and others are served."""
    async with (
        start_server(message_burst=2, messages_per_second=SLOW, metrics_port=0) as server,
        dial(server) as client,
        dial(server) as other,
    ):
        for _ in range(2 + FLOOD * 2 + 1):
            await client.websocket.send("?")
        codes = [(await client.receive())["code"] for _ in range(2 + FLOOD * 2 + 1)]
        assert codes == ["invalid_message"] * 2 + ["rate_limited"] * (FLOOD * 2 + 1)
        with pytest.raises(ConnectionClosedError) as caught:
            await client.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == TOO_FAST
        await other.flush()
        assert (await scraped(server))("closings_total", reason="too_fast") == 1
