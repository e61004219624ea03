"""Guards `server.websocket` over raw sockets: a client that does not read cannot fill the server's memory."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from websockets.frames import Frame, Opcode

from server.app import Server
from server.close_codes import TOO_SLOW
from server.websocket import Websocket
from tests.server.conftest import Ends, ServerFactory
from tests.server.fakes import sample
from tests.server.raw import UPGRADE, dial

# What the system buffers on the server's behalf is made small; on the client's side it is some hundreds of kilobytes.
SYSTEM_BUFFER = 4096
LEAST_BOUND = 65_536
# What asyncio hands over at once, and so may be answered before anybody looks.
AT_ONCE = 262_144


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most bytes that ever waited in a connection's buffer."""
    largest, send_data = [0], Websocket.send_data

    def measured(websocket: Websocket) -> None:
        send_data(websocket)
        largest[0] = max(largest[0], websocket.transport.get_write_buffer_size())

    monkeypatch.setattr(Websocket, "send_data", measured)
    return largest


def shrink(server: Server) -> None:
    """Give the server's connections small buffers of the system's, so that its own are soon needed."""
    assert server._listener is not None
    for listening in server._listener._sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SYSTEM_BUFFER)


@asynccontextmanager
async def deaf(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has shaken hands, and reads nothing from then on."""
    shrink(server)
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write("\r\n".join(["GET / HTTP/1.1", f"Host: {address.netloc}", *UPGRADE, "", ""]).encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        yield reader, writer
    finally:
        writer.transport.abort()


def frames(opcode: Opcode, payloads: list[bytes]) -> bytes:
    """Frames as a client sends them."""
    return b"".join(Frame(opcode, payload).serialize(mask=True) for payload in payloads)


def questions(count: int) -> bytes:
    """So many questions that need no model; each answer has about a kilobyte."""
    asks = [{"type": "ask", "id": f"{number}", "text": "Where is my order?"} for number in range(count)]
    return frames(Opcode.TEXT, [json.dumps(ask).encode() for ask in asks])


def closings(server: Server) -> float | None:
    """How many clients were too slow."""
    return sample(server._metrics, "closings_total", reason="too_slow")


async def test_a_client_that_does_not_read_is_told_and_cut_off(
    start_server: ServerFactory, ends: Ends, largest: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its questions wait unread, its replies are bounded, and after a while it is gone; others are answered."""
    monkeypatch.setattr("server.websocket.GOODBYE_SECONDS", 0.05)
    async with start_server(send_seconds=0.05) as server, dial(server) as other, deaf(server) as (_, writer):
        writer.write(questions(1000))
        await ends.given_up.wait()
        await ends.closed(server, 1)
        await other.flush()
        assert closings(server) == 1
        assert largest[0] < LEAST_BOUND


async def test_the_code_comes_last(start_server: ServerFactory, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that begins to read in time gets what was written for it, and then why it is closed."""
    monkeypatch.setattr("server.websocket.GOODBYE_SECONDS", 600.0)
    async with start_server(send_seconds=0.05) as server, deaf(server) as (reader, writer):
        writer.write(questions(1000))
        await ends.given_up.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        received = b""
        code = TOO_SLOW.to_bytes(2, "big")
        while code + b"what is sent" not in received:
            received += await reader.read(1 << 16)
        assert b'"type":"answer"' in received


async def test_pings_that_nobody_reads_the_pongs_of(
    start_server: ServerFactory, ends: Ends, largest: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library answers them without waiting; so the buffer's size has a bound as well as its time."""
    monkeypatch.setattr("server.websocket.GOODBYE_SECONDS", 0.05)
    async with start_server(send_seconds=600.0, max_outgoing=LEAST_BOUND) as server:
        async with deaf(server) as (_, writer):
            writer.write(frames(Opcode.PING, [b"x" * 125] * 20_000))
            await ends.given_up.wait()
            await ends.closed(server, 0)
        assert closings(server) == 1
        assert LEAST_BOUND < largest[0] <= LEAST_BOUND + AT_ONCE


async def test_a_client_that_reads_late_is_served(start_server: ServerFactory) -> None:
    """Who falls behind and catches up in time loses nothing."""
    async with start_server(send_seconds=600.0) as server, dial(server) as client:
        client.websocket.transport.pause_reading()
        for number in range(300):
            await client.ask(f"{number}", "Where is my order?")
        [connection] = server.reception.connections
        client.websocket.transport.resume_reading()
        assert [(await client.receive())["id"] for _ in range(300)] == [f"{number}" for number in range(300)]
        await client.flush()
        assert connection in server.reception.connections
