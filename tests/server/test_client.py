"""Guards `server.client`: many questions over one connection, and what it says when there is no faqwire."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from server.app import Server
from server.client import Client
from server.errors import ClientError
from server.messages import Accepted, Answer, Error, Hello, Suggestion, Suggestions
from tests.server.fakes import Device, until
from tests.server.raw import UNSEEN
from tests.server.test_feedback import Book
from tests.server.test_hello import check

ServerFactory = Any

WELCOME = json.dumps(
    {
        "type": "welcome",
        "protocol": "faqwire.v1",
        "faq": "Strange",
        "language": "en",
        "greeting": None,
        "index": "1",
        "limits": dict.fromkeys(
            ("max_text", "max_frame", "max_in_flight", "min_budget_ms", "max_budget_ms", "budget_ms"), 1
        ),
    }
)


@asynccontextmanager
async def strange(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """The address of a websocket server that is not faqwire."""
    async with serve(handler, "127.0.0.1", 0, select_subprotocol=lambda *_: None) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_ask(server: Server) -> None:
    """A question gets its typed answer, the welcome can be read, and the client closes behind itself."""
    async with Client(server.url) as client:
        assert client.welcome.faq == "Tidewater Goods"
        reply = await client.ask("Where is my order?", budget_ms=5000)
        assert isinstance(reply, Answer)
        assert reply.entry is not None
        assert reply.entry.id == "track-order"
        await client.ping()
    await until(lambda: not server.reception.connections)


async def test_refused_question(server: Server) -> None:
    """A question that the server refuses gives its error as a value; the client goes on."""
    async with Client(server.url) as client:
        reply = await client.ask(" ")
        assert isinstance(reply, Error)
        assert reply.code == "invalid_text"
        assert isinstance(await client.ask("Where is my order?"), Answer)


async def test_many_at_once(server: Server) -> None:
    """Questions asked at the same time get each its own reply."""
    texts = ["Where is my order?", "How do I place an order?", " "] * 10
    async with Client(server.url) as client:
        replies = await asyncio.gather(*(client.ask(text) for text in texts))
    ids = [reply.entry.id if isinstance(reply, Answer) and reply.entry else None for reply in replies]
    assert ids == ["track-order", "place-order", None] * 10


async def test_cancelled_question(start_held: ServerFactory, device: Device) -> None:
    """A question that is given up leaves nothing behind: the server is told, and the model never sees it."""
    async with start_held() as server, Client(server.url) as client:
        lanes = server._engine.encoder.sessions
        busy = [asyncio.create_task(client.ask(f"{UNSEEN}, number {lane}")) for lane in range(lanes)]
        for _ in range(lanes):
            await device.arrived.get()
        asking = asyncio.create_task(client.ask(UNSEEN))
        await until(lambda: server._running.pipeline._encode.waiting == 1)
        asking.cancel()
        await until(lambda: server._running.pipeline._encode.waiting == 0)
        assert asking.cancelled()
        device.let_go()
        assert [type(reply) for reply in await asyncio.gather(*busy)] == [Answer] * lanes
        assert isinstance(await client.ask("Where is my order?"), Answer)
        assert len(device.seen) == lanes
        assert not client._pending
        assert not client._tasks


async def test_cancelled_ping(server: Server) -> None:
    """What takes no time is not cancelled at the server: its reply is dropped."""
    async with Client(server.url) as client:
        pinging = asyncio.create_task(client.ping())
        await asyncio.sleep(0)
        pinging.cancel()
        await until(pinging.done)
        await client.ping()
        assert not client._pending
        assert not client._tasks


async def test_suggest(server: Server) -> None:
    """What a visitor is typing gets typed suggestions."""
    async with Client(server.url) as client:
        reply = await client.suggest("where is my o")
        assert isinstance(reply, Suggestions)
        assert reply.suggestions == (Suggestion("track-order", "Where is my order?"),)
        assert isinstance(await client.suggest("x" * 1001), Error)


async def test_feedback(start_server: ServerFactory, server: Server) -> None:
    """Feedback is accepted where it is recorded, and an error as a value where it is not."""
    book = Book()
    book.open.set()
    hello = Hello("test/1", "en-GB")
    async with start_server(recorder=book) as recording, Client(recording.url, hello=hello) as client:
        answer = await client.ask("Where is my order?")
        assert isinstance(answer, Answer)
        assert isinstance(await client.feedback(answer.ref, helpful=False, comment="no"), Accepted)
        assert [(said.ref, said.helpful, said.comment) for said in book.kept] == [(answer.ref, False, "no")]
    async with Client(server.url) as client:
        reply = await client.feedback("R", helpful=True)
        assert isinstance(reply, Error)
        assert reply.code == "not_recorded"


async def test_token(start_server: ServerFactory) -> None:
    """A client shows its token on every connection; one without it fails, and does not try again and again."""
    async with start_server(authenticate=check) as server:
        async with Client(server.url, hello=Hello(token="sesame")) as client:
            assert isinstance(await client.ask("Where is my order?"), Answer)
        async with Client(server.url) as client:
            for _ in range(2):
                with pytest.raises(ClientError, match="4450 begin with a hello"):
                    await client.ask("Where is my order?")
            assert client._keeper is not None
            assert client._keeper.done()


async def test_nobody_there() -> None:
    """A port on which nobody listens is said to be so, with what to do."""
    url = f"ws://127.0.0.1:{closed_port()}/"
    with pytest.raises(ClientError, match=f"cannot reach {re.escape(url)} .*`faqwire serve` starts one"):
        async with Client(url):
            pass


async def test_no_such_host() -> None:
    """A host that does not exist cannot be reached."""
    with pytest.raises(ClientError, match=r"cannot reach ws://nowhere\.invalid/"):
        async with Client("ws://nowhere.invalid/"):
            pass


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "127.0.0.1:8765", "ws://", "", "ws://127.0.0.1:70000/", "ws://[::1", "ws://a..b/"]
)
async def test_not_an_address(url: str) -> None:
    """What is no websocket address is refused in a sentence."""
    with pytest.raises(ClientError, match=r"is not a faqwire server|cannot reach"):
        async with Client(url):
            pass


async def test_silent_port() -> None:
    """A port that takes the connection and says nothing is given up after the time to open."""
    quiet = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await quiet.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as listener:
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        with pytest.raises(ClientError, match="no answer in time"):
            async with Client(url, open_timeout=0.05):
                pass
        quiet.set()


async def test_other_protocol_on_the_port() -> None:
    """A port that speaks something else is not a faqwire server."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        with pytest.raises(ClientError, match="is not a faqwire server"):
            async with Client(url):
                pass


async def test_wrong_path(server: Server) -> None:
    """A faqwire server asked at another path is not one there."""
    with pytest.raises(ClientError, match=r"is not a faqwire server: .*404"):
        async with Client(server.url + "chat"):
            pass


@pytest.mark.parametrize("greeting", ["hello", '{"type":"pong","id":null}', b"\0", None])
async def test_no_welcome(greeting: str | bytes | None) -> None:
    """A websocket server that does not begin with a welcome is not a faqwire server, and is left at once."""
    left = asyncio.Event()

    async def greet(websocket: ServerConnection) -> None:
        if greeting is not None:
            await websocket.send(greeting)
            await websocket.wait_closed()
        left.set()

    async with strange(greet) as url:
        with pytest.raises(ClientError, match=r"not a faqwire server|did not begin with a welcome"):
            async with Client(url):
                pass
        await left.wait()


async def test_closed_before_the_reply() -> None:
    """When the connection is closed every open question ends in an error, and later ones too."""

    async def hang_up(websocket: ServerConnection) -> None:
        await websocket.send(WELCOME)
        await websocket.recv()
        await websocket.close(1001, "gone")

    async with strange(hang_up) as url, Client(url) as client:
        ends = await asyncio.gather(client.ask("one"), client.ask("two"), client.ping(), return_exceptions=True)
        for end in [*ends, *await asyncio.gather(client.ask("three"), return_exceptions=True)]:
            assert isinstance(end, ClientError)
            assert "closed" in str(end)


async def test_stopping_server_ends_open_questions(start_held: ServerFactory, device: Device) -> None:
    """A real server that stops without an answer ends the question in an error."""
    async with start_held(drain_seconds=0) as server, Client(server.url) as client:
        asking = asyncio.create_task(client.ask(UNSEEN))
        await device.arrived.get()
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(ClientError, match="closed"):
            await asking
        device.let_go()
        await stopping


@pytest.mark.parametrize(
    "frame",
    ["nonsense", '{"type":"answer"}', '{"type":"pong","more":' + "[" * 9999, b'{"type":"pong","id":"\xff"}'],
    ids=["no JSON", "no answer", "nested deeply", "no UTF-8"],
)
async def test_nonsense_from_the_server(frame: str | bytes) -> None:
    """When a server sends what is no message the client gives the connection up instead of waiting for ever."""
    left = asyncio.Event()

    async def babble(websocket: ServerConnection) -> None:
        await websocket.send(WELCOME)
        await websocket.recv()
        await websocket.send(frame)
        await websocket.wait_closed()
        left.set()

    async with strange(babble) as url, Client(url) as client:
        with pytest.raises(ClientError, match="what is not a message"):
            await client.ask("one")
        with pytest.raises(ClientError):
            await client.ask("two")
        await left.wait()


async def test_closed_with_open_questions(start_held: ServerFactory, device: Device) -> None:
    """Who closes the client ends what it has open, in words that say so; nothing can be asked afterwards."""
    async with start_held() as server:
        async with Client(server.url) as client:
            asking = asyncio.create_task(client.ask(UNSEEN))
            await device.arrived.get()
        for ask in (asking, client.ask("Where is my order?")):
            with pytest.raises(ClientError, match="the client was closed"):
                await ask


async def test_unasked_messages_are_ignored() -> None:
    """Messages that nobody waits for do not disturb: a late reply, a later type, an error without an id."""

    async def chatter(websocket: ServerConnection) -> None:
        error = {"type": "error", "code": "x", "message": "", "retryable": False, "retry_after_ms": None}
        for message in (
            WELCOME,
            WELCOME,
            '{"type":"typing","id":"1"}',
            json.dumps({**error, "id": None}),
            json.dumps({**error, "id": "999"}),
        ):
            await websocket.send(message)
        async for frame in websocket:
            await websocket.send(json.dumps({"type": "pong", "id": json.loads(frame)["id"]}))

    async with strange(chatter) as url, Client(url) as client:
        await client.ping()
        with pytest.raises(ClientError, match="replied to an ask with a pong"):
            await client.ask("one")


async def test_unconnected_client() -> None:
    """A client that was not entered says how to use it."""
    with pytest.raises(ClientError, match="async with"):
        await Client("ws://127.0.0.1:1/").ask("one")
