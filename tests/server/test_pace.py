"""Guards `server.pace`, alone and over real sockets: too many messages are refused, and a flood ends the connection."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Frame, Opcode

from server.close_codes import TOO_FAST
from server.pace import FLOOD, FRAMES, LEAST_BURST, LEAST_RATE, Pace
from server.websocket import PIECE
from tests.server.conftest import ServerFactory
from tests.server.fakes import Device
from tests.server.raw import UNSEEN, UPGRADE, dial
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


def test_frames_have_a_pace_of_their_own() -> None:
    """So many times as many as messages may come at once, and as fast; whoever only sends messages never meets it."""
    pace = Pace(2.0, 15, 0.0)
    assert all(pace.takes_frame(0.0, control=False) for _ in range(FRAMES * 15))
    assert not pace.takes_frame(0.0, control=False)
    assert pace.takes_frame(1 / (FRAMES * 2.0), control=False)
    messages = Pace(2.0, 15, 0.0)
    while not messages.flooding:
        assert messages.takes_frame(0.0, control=False)
        messages.check(0.0)


def test_pings_have_the_pace_of_messages() -> None:
    """As many pings and pongs may come as messages, and in any case what libraries send by themselves."""
    pace = Pace(2.0, 15, 0.0)
    assert [pace.takes_frame(0.0, control=True) for _ in range(16)] == [True] * 15 + [False]
    assert pace.takes_frame(0.5, control=True)
    slow = Pace(0.01, 1, 0.0)
    assert [slow.takes_frame(0.0, control=True) for _ in range(LEAST_BURST + 1)] == [True] * LEAST_BURST + [False]
    assert all(slow.takes_frame(10 + number / LEAST_RATE, control=True) for number in range(1000))


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


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Opcode.PING, b""),
        Frame(Opcode.PONG, b"unasked"),
        Frame(Opcode.TEXT, b"?"),
    ],
)
async def test_too_many_frames_end_their_connection(
    start_server: ServerFactory, monkeypatch: pytest.MonkeyPatch, frame: Frame
) -> None:
    """Frames of any kind that come too fast close the connection before most are answered; others are served."""
    monkeypatch.setattr("server.websocket.GOODBYE_SECONDS", 0.05)
    async with (
        start_server(message_burst=2, messages_per_second=SLOW, metrics_port=0) as server,
        dial(server) as client,
        dial(server) as other,
    ):
        client.websocket.transport.write(frame.serialize(mask=True) * 10_000)
        with pytest.raises(ConnectionClosedError) as caught:
            [_ async for _ in client.websocket]
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (TOO_FAST, "frames come too fast")
        await other.flush()
        assert (await scraped(server))("closings_total", reason="too_fast") == 1


async def test_parts_of_a_message_are_frames(start_server: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message may come in parts; one that never ends, in parts without content, ends its connection."""
    monkeypatch.setattr("server.websocket.GOODBYE_SECONDS", 0.05)
    async with start_server(message_burst=2, messages_per_second=SLOW) as server, dial(server) as client:
        await client.websocket.send(iter(['{"type":', '"ping",', '"id":"parts"}']))
        assert await client.receive() == {"type": "pong", "id": "parts"}
        more = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 10_000
        client.websocket.transport.write(Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True) + more)
        with pytest.raises(ConnectionClosedError) as caught:
            await client.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == TOO_FAST


async def test_pings_of_a_sane_client_are_answered(start_server: ServerFactory) -> None:
    """A client that looks now and then whether the connection lives is not hurried."""
    async with start_server(message_burst=1, messages_per_second=SLOW) as server, dial(server) as client:
        for _ in range(LEAST_BURST - 1):
            await (await client.websocket.ping())
        await client.flush()


async def test_nothing_is_said_before_the_handshake_is_answered(start_server: ServerFactory) -> None:
    """A client that sends frames behind its request, far more than by accident, is cut off; others are served."""
    async with start_server() as server:
        address = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        request = "\r\n".join(["GET / HTTP/1.1", f"Host: {address.netloc}", *UPGRADE, "", ""]).encode()
        writer.write(request + Frame(Opcode.PING, b"").serialize(mask=True) * 20_000)
        received = b""
        with suppress(ConnectionResetError):  # what the system had not handed over yet decides how the end looks
            received = await reader.read()
        writer.transport.abort()
        assert b"HTTP" not in received
        assert len(received) < PIECE  # of one piece's pings at most
        async with dial(server) as other:
            await other.flush()
