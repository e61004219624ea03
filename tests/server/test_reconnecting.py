"""Guards how `server.client` comes back when its connection is lost: when, how soon, and when not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import Server as WebsocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from server.backoff import Backoff
from server.client import Client
from server.errors import ClientError
from server.messages import Error, GoingAway, Hello, encode
from tests.server.fakes import Clock, until
from tests.server.test_client import WELCOME

Handler = Callable[[ServerConnection, int], Awaitable[None]]


class Host:
    """A websocket server that is not faqwire.

    Attributes:
        server: the listener.
        connected: how many connections there have been.
        refusals: what the next handshakes get instead.
    """

    server: WebsocketServer

    def __init__(self) -> None:
        self.connected = 0
        self.refusals: list[HTTPStatus] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"ws://127.0.0.1:{next(iter(self.server.sockets)).getsockname()[1]}/"

    def gate(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse a handshake where that is due."""
        del request
        return connection.respond(self.refusals.pop(0), "not now\n") if self.refusals else None


@asynccontextmanager
async def host(handler: Handler) -> AsyncIterator[Host]:
    """A server that greets, and then does what the handler says with each connection, by its number."""
    one = Host()

    async def greet(websocket: ServerConnection) -> None:
        one.connected += 1
        await websocket.send(WELCOME)
        await handler(websocket, one.connected)

    async with serve(greet, "127.0.0.1", 0, select_subprotocol=lambda *_: None, process_request=one.gate) as one.server:
        yield one


def impatient() -> Backoff:
    """Delays of nothing."""
    return Backoff(0, 0)


def patient() -> Backoff:
    """Delays longer than anybody waits."""
    return Backoff(100, 100, draw=lambda _, most: most)


async def turns() -> None:
    """Let the event loop go round until nothing happens any more."""
    for _ in range(100):
        await asyncio.sleep(0)


async def pong(websocket: ServerConnection) -> None:
    """Answer pings until the client leaves."""
    async for frame in websocket:
        await websocket.send(json.dumps({"type": "pong", "id": json.loads(frame)["id"]}))


def closing(code: int) -> Handler:
    """Close the first connection with a code; serve the others."""

    async def handle(websocket: ServerConnection, number: int) -> None:
        if number == 1:
            await websocket.recv()
            await websocket.close(code, "for a test")
        await pong(websocket)

    return handle


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4400])
async def test_it_comes_back(code: int) -> None:
    """What was in flight fails; what comes later waits for the next connection."""
    async with host(closing(code)) as one, Client(one.url, backoff=impatient()) as client:
        with pytest.raises(ClientError, match=f"closed the connection .*{code}.* for a test") as caught:
            await client.ping()
        assert caught.value.again
        await client.ping()
        assert one.connected == 2


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 4450])
async def test_it_stays_away(code: int) -> None:
    """After a close code that says so it does not come back, and says why to all who ask."""
    async with host(closing(code)) as one, Client(one.url, backoff=impatient()) as client:
        for _ in range(3):
            with pytest.raises(ClientError, match=str(code)) as caught:
                await client.ping()
        assert not caught.value.again
        assert one.connected == 1


async def test_a_connection_that_is_cut() -> None:
    """A connection that ends without a goodbye is made again."""

    async def cut(websocket: ServerConnection, number: int) -> None:
        if number == 1:
            await websocket.recv()
            websocket.transport.abort()
        await pong(websocket)

    async with host(cut) as one, Client(one.url, backoff=impatient()) as client:
        with pytest.raises(ClientError, match="1006"):
            await client.ping()
        await client.ping()


async def test_questions_are_not_asked_again_by_themselves() -> None:
    """A question that was in flight fails; one whose asker said so is asked again on the next connection."""
    asked: list[tuple[int, str]] = []

    async def cut(websocket: ServerConnection, number: int) -> None:
        async for frame in websocket:
            request = json.loads(frame)
            asked.append((number, request["text"]))
            if number > 1:
                await websocket.send(
                    encode(Error(request["id"], "invalid_text", "an end", retryable=False, retry_after_ms=None))
                )
            elif len(asked) == 2:
                websocket.transport.abort()

    async with host(cut) as one, Client(one.url, backoff=impatient()) as client:
        lost = asyncio.create_task(client.ask("lost"))
        kept = asyncio.create_task(client.ask("kept", again=True))
        with pytest.raises(ClientError, match="closed the connection"):
            await lost
        assert isinstance(await kept, Error)
    assert asked == [(1, "lost"), (1, "kept"), (2, "kept")]


async def test_it_tries_until_it_is_let_in() -> None:
    """Handshakes that fail for now, as behind a proxy whose server restarts, are tried again."""
    async with host(closing(1012)) as one, Client(one.url, backoff=impatient()) as client:
        one.refusals = [
            *(HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_GATEWAY, HTTPStatus.TOO_MANY_REQUESTS),
            HTTPStatus.SERVICE_UNAVAILABLE,
        ]
        with pytest.raises(ClientError):
            await client.ping()
        await client.ping()
        assert not one.refusals


async def test_it_gives_up_where_it_is_not_wanted() -> None:
    """A handshake that is refused for good ends it, also for those who wait for the connection."""
    async with host(closing(1012)) as one, Client(one.url, backoff=impatient()) as client:
        one.refusals = [HTTPStatus.FORBIDDEN]
        with pytest.raises(ClientError):
            await client.ping()
        for _ in range(2):
            with pytest.raises(ClientError, match="403"):
                await client.ping()
        assert one.connected == 1


async def test_a_server_that_stays_away(clock: Clock) -> None:
    """A request does not wait for a connection for ever."""
    async with host(closing(1001)) as one, Client(one.url, open_timeout=7, backoff=patient()) as client:
        with pytest.raises(ClientError, match="1001"):
            await client.ping()
        one.server.close()
        waiting = asyncio.create_task(client.ping())
        await turns()
        clock.now += 8
        with pytest.raises(ClientError, match="has not been reached again"):
            await waiting


async def test_it_waits_as_long_as_the_server_asked(clock: Clock) -> None:
    """After `going_away` it comes back when it was told to, and not before."""

    async def leave(websocket: ServerConnection, number: int) -> None:
        if number == 1:
            await websocket.recv()
            await websocket.send(json.dumps({"type": "going_away", "reconnect_after_ms": 60_000}))
            await websocket.close(1001)
        await pong(websocket)

    async with host(leave) as one, Client(one.url, open_timeout=1000, backoff=impatient()) as client:
        with pytest.raises(ClientError):
            await client.ping()
        waiting = asyncio.create_task(client.ping())
        clock.now += 59
        await turns()
        assert (one.connected, waiting.done()) == (1, False)
        clock.now += 2
        await waiting
        assert one.connected == 2


async def test_it_leaves_when_it_is_to_go(clock: Clock) -> None:
    """At the moment that `going_away` names requests begin to wait; those in flight end first, and none fails."""
    held, asked = asyncio.Event(), asyncio.Event()
    seen: list[tuple[int, str]] = []

    async def announce(websocket: ServerConnection, number: int) -> None:
        async for frame in websocket:
            request = json.loads(frame)
            seen.append((number, request["id"]))
            if number == 1 and request["id"] == "1":
                await websocket.send(json.dumps({"type": "going_away", "reconnect_after_ms": 5_000}))
                asked.set()
                await held.wait()
            await websocket.send(json.dumps({"type": "pong", "id": request["id"]}))
        assert websocket.close_code == 1000

    async with host(announce) as one, Client(one.url, open_timeout=1000, backoff=patient()) as client:
        first = asyncio.create_task(client.ping())
        await asked.wait()
        early = asyncio.create_task(client.ping())
        await turns()
        await until(lambda: client._return_at is not None)  # it has been told
        clock.now += 6
        await turns()
        late = asyncio.create_task(client.ping())
        await turns()
        assert (one.connected, late.done()) == (1, False)
        held.set()
        await asyncio.gather(first, early, late)
        assert one.connected == 2
        assert seen == [(1, "1"), (1, "2"), (2, "3")]


async def test_it_closes_what_it_is_about_to_leave(clock: Clock) -> None:
    """A client that is closed while it waits for its last replies leaves no connection behind."""
    gone, asked = asyncio.Event(), asyncio.Event()

    async def announce(websocket: ServerConnection, number: int) -> None:
        await websocket.recv()
        await websocket.send(json.dumps({"type": "going_away", "reconnect_after_ms": 0}))
        asked.set()
        await websocket.wait_closed()
        gone.set()

    async with host(announce) as one, Client(one.url, open_timeout=1000, backoff=impatient()) as client:
        waiting = asyncio.create_task(client.ping())
        await asked.wait()
        await until(lambda: client._going is not None)
        await client.__aexit__(None, None, None)
        await gone.wait()
        assert one.connected == 1
        with pytest.raises(ClientError):
            await waiting


async def test_delays_grow_until_a_connection_holds(clock: Clock) -> None:
    """Connections that break at once are made after growing delays; one that held for a while begins anew."""
    drawn: list[float] = []

    def draw(_: float, most: float) -> float:
        drawn.append(most)
        return 0

    async def drop(websocket: ServerConnection, number: int) -> None:
        if number < 4:
            await websocket.close(1011)
        await pong(websocket)

    async with host(drop) as one, Client(one.url, open_timeout=1000, backoff=Backoff(1, 30, draw=draw)) as client:
        await until(lambda: one.connected == 4)
        await client.ping()
        assert drawn == [1, 2, 4]
        clock.now += 31
        next(iter(one.server.connections)).transport.abort()
        await until(lambda: one.connected == 5)
        assert drawn == [1, 2, 4, 1]


async def test_it_says_hello_again() -> None:
    """Every connection begins with the same hello."""
    heard: list[str] = []

    async def listen(websocket: ServerConnection, number: int) -> None:
        heard.append(json.loads(await websocket.recv())["token"])
        if number == 1:
            await websocket.close(1012)
        await pong(websocket)

    async with host(listen) as one, Client(one.url, hello=Hello(token="t"), backoff=impatient()) as client:
        await until(lambda: one.connected == 2)
        await client.ping()
    assert heard == ["t", "t"]


async def test_leaving_while_it_is_away(clock: Clock) -> None:
    """A client that waits to connect again is closed at once, and who waits with it is told."""
    async with host(closing(1001)) as one:
        async with Client(one.url, open_timeout=1000, backoff=patient()) as client:
            with pytest.raises(ClientError):
                await client.ping()
            waiting = asyncio.create_task(client.ping())
            await turns()
        with pytest.raises(ClientError):
            await waiting
        assert one.connected == 1


async def test_a_server_that_announces_its_end_and_is_gone() -> None:
    """Requests do not wait for the goodbye of a server that has stopped without one."""
    over = asyncio.Event()

    async def vanish(websocket: ServerConnection, number: int) -> None:
        if number > 1:
            await pong(websocket)
            return
        websocket.transport.pause_reading()
        await websocket.send(encode(GoingAway(0)))
        await over.wait()
        websocket.transport.abort()

    async with host(vanish) as one, Client(one.url, backoff=impatient(), open_timeout=5) as client:
        await until(lambda: client._going is not None)
        try:
            await client.ping()
        finally:
            over.set()
        assert one.connected == 2
