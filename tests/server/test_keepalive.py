"""Guards `server.keepalive`, and what a connection keeps while nothing happens: who answers pings stays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from server.app import Server
from server.close_codes import INTERNAL
from server.connection import Connection
from server.keepalive import AT_A_TIME, PING_SECONDS, Keepalive
from tests.server.conftest import ServerFactory
from tests.server.fakes import Clock, sample, until
from tests.server.raw import UPGRADE, dial

if TYPE_CHECKING:
    from server.websocket import Websocket

GIVEN_UP = Frame(Opcode.CLOSE, Close(INTERNAL, "keepalive ping timeout").serialize()).serialize(mask=False)


class Asked:
    """Stands in for a websocket that answers as often as it is told to."""

    def __init__(self, patience: int = 1_000_000) -> None:
        self.patience = patience
        self.times: list[float] = []
        self.now = 0.0

    def probe(self) -> bool:
        """See `Websocket.probe`."""
        self.times.append(self.now)
        return len(self.times) <= self.patience


class Room:
    """A `Keepalive` of 20 seconds over such websockets, and how many were given up."""

    def __init__(self) -> None:
        self.given_up = 0
        self.keepalive = Keepalive(20.0, self.give_up)
        self.inside: list[Asked] = []

    def give_up(self) -> None:
        """One more."""
        self.given_up += 1

    def enter(self, asked: Asked, now: float) -> Asked:
        """Watch one."""
        self.inside.append(asked)
        self.keepalive.watch(cast("Websocket", asked), now)
        return asked

    def look(self, now: float) -> bool:
        """Look once."""
        for asked in self.inside:
            asked.now = now
        return self.keepalive.look(now)


@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.booleans()),
        min_size=1,
        max_size=60,
    )
)
def test_each_is_asked_at_its_interval(steps: list[tuple[int, bool]]) -> None:
    """However connections come and looks are spread, nobody is asked too soon, and a look asks whoever is due."""
    room, now = Room(), 0.0
    began: dict[Asked, float] = {}
    for seconds, coming in steps:
        now += seconds
        if coming:
            began[room.enter(Asked(), now)] = now
        while room.look(now):
            pass
        for asked, start in began.items():
            times = [start, *asked.times]
            assert all(later - earlier >= 20.0 for earlier, later in pairwise(times))
            assert now - times[-1] < 20.0
    assert room.given_up == 0


def test_few_at_a_time() -> None:
    """Whatever is due, a look asks no more than some, and says that there are others."""
    room = Room()
    asked = [room.enter(Asked(), 0.0) for _ in range(AT_A_TIME + 1)]
    assert not room.look(19.9)
    assert room.look(20.0)
    assert [len(one.times) for one in asked] == [1] * AT_A_TIME + [0]
    assert not room.look(20.0)
    assert [len(one.times) for one in asked] == [1] * (AT_A_TIME + 1)


def test_who_does_not_answer_is_let_go() -> None:
    """Whoever is given up counts once, and is not asked again; nor is whoever has left. Both are forgotten."""
    room = Room()
    silent, leaving = room.enter(Asked(patience=1), 0.0), room.enter(Asked(), 0.0)
    room.look(20.0)
    room.keepalive.forget(cast("Websocket", leaving))
    room.look(40.0)
    room.look(60.0)
    assert (silent.times, leaving.times) == ([20.0, 40.0], [20.0])
    assert room.given_up == 1
    room.keepalive.forget(cast("Websocket", silent))
    assert len(room.keepalive) == 0


@asynccontextmanager
async def mute(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has shaken hands and been greeted, and answers nothing of itself."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write("\r\n".join(["GET / HTTP/1.1", f"Host: {address.netloc}", *UPGRADE, "", ""]).encode())
        await reader.readuntil(b"\r\n\r\n")
        _, length = await reader.readexactly(2)
        assert length == 126
        await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        yield reader, writer
    finally:
        writer.close()


def now() -> float:
    """The event loop's time."""
    return asyncio.get_running_loop().time()


def pinged(websocket: "Websocket") -> bool:
    """Whether a ping has no pong yet."""
    return websocket._ping is not None


async def ping_of(reader: asyncio.StreamReader) -> bytes:
    """What the next frame, a ping, carries."""
    opcode, length = await reader.readexactly(2)
    assert opcode == 0x80 | Opcode.PING
    return await reader.readexactly(length)


async def test_who_answers_stays(start_server: ServerFactory) -> None:
    """A client that does as websockets do is pinged again and again, and stays."""
    async with start_server() as server, dial(server) as client:
        for number in range(1, 4):
            server.reception.keepalive.look(now() + number * 2 * PING_SECONDS)
            [connection] = server.reception.connections
            assert pinged(connection._websocket)
            await client.flush()
            await until(lambda: not any(pinged(connection._websocket) for connection in server.reception.connections))
        await client.flush()
        assert sample(server._metrics, "closings_total", reason="no_pong") == 0


@pytest.mark.parametrize("answer", ["nothing", "another pong", "a message"])
async def test_who_does_not_answer_is_closed(start_server: ServerFactory, answer: str) -> None:
    """No pong by the next ping's time is 1011, once; neither a pong of something else nor a message is one."""
    async with start_server() as server, mute(server) as (reader, writer):
        server.reception.keepalive.look(now() + PING_SECONDS)
        payload = await ping_of(reader)
        [connection] = server.reception.connections
        match answer:
            case "another pong":
                writer.write(Frame(Opcode.PONG, payload + b"x").serialize(mask=True))
            case "a message":
                writer.write(Frame(Opcode.TEXT, b"{}").serialize(mask=True))
        writer.write(Frame(Opcode.PING, b"until here").serialize(mask=True))
        assert await reader.readuntil(b"until here")
        assert connection in server.reception.connections
        server.reception.keepalive.look(now() + 2 * PING_SECONDS + 1)
        assert sample(server._metrics, "closings_total", reason="no_pong") == 1
        assert len(server.reception.keepalive) == 0
        assert await reader.readuntil(GIVEN_UP)


async def test_each_ping_is_another(start_server: ServerFactory) -> None:
    """What a ping carries cannot be known without reading it: it differs from client to client and time to time."""
    async with start_server() as server, mute(server) as (one, one_writer), mute(server) as (other, _):
        server.reception.keepalive.look(now() + PING_SECONDS)
        payloads = [await ping_of(one), await ping_of(other)]
        one_writer.write(Frame(Opcode.PONG, payloads[0]).serialize(mask=True))
        await until(lambda: sum(pinged(connection._websocket) for connection in server.reception.connections) == 1)
        server.reception.keepalive.look(now() + 2 * PING_SECONDS + 1)
        payloads.append(await ping_of(one))
        assert len(set(payloads)) == 3


async def test_nobody_is_pinged_who_does_not_read(start_server: ServerFactory) -> None:
    """While what was sent waits to be read, the time for that runs, and no ping is added to it."""
    async with start_server() as server, dial(server) as client:
        [connection] = server.reception.connections
        connection._websocket.pause_writing()
        assert connection._websocket.probe()
        assert not pinged(connection._websocket)
        connection._websocket.resume_writing()
        assert connection._websocket.probe()
        assert pinged(connection._websocket)
        await client.flush()


async def test_the_chore_runs(start_server: ServerFactory, clock: Clock) -> None:
    """A running server pings of itself, and closes who does not answer; it is watched no more, nor is who leaves."""
    async with start_server() as server, dial(server) as client:
        async with mute(server) as (reader, _):
            clock.now += PING_SECONDS
            await ping_of(reader)
            await until(lambda: sum(pinged(connection._websocket) for connection in server.reception.connections) == 1)
            clock.now += 2 * PING_SECONDS
            assert await reader.readuntil(GIVEN_UP)
        await until(lambda: len(server.reception.keepalive) == 1)
        await client.flush()
        await client.websocket.close()
        await until(lambda: len(server.reception.keepalive) == 0)


async def test_what_an_idle_connection_keeps(start_server: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No headers, no task but the one that serves it, no dict of attributes.

    A release of websockets that has attributes which `Websocket.__slots__` does not name fails here: add them there.
    """
    tasks: list[Any] = []
    serve = Connection.serve

    async def serves(connection: Connection) -> None:
        tasks.append(asyncio.current_task())
        await serve(connection)

    monkeypatch.setattr(Connection, "serve", serves)
    async with start_server() as server:
        before = asyncio.all_tasks()
        async with mute(server):
            [connection] = server.reception.connections
            websocket = connection._websocket
            assert asyncio.all_tasks() - before == set(tasks)
            assert vars(websocket) == {}
            assert websocket.request is not None
            assert len(websocket.request.headers) == 0
            assert websocket.response is not None
            assert len(websocket.response.headers) == 0
