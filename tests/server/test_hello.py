"""Guards `hello` over real sockets: who a client says it is, and what proves that it may connect."""

import json

import pytest
from websockets.exceptions import ConnectionClosedError

from server.app import Server
from server.close_codes import UNAUTHENTICATED
from tests.server.conftest import Events, ServerFactory
from tests.server.raw import Raw, dial


async def check(token: str) -> bool:
    """An `Authenticate` that knows one token."""
    return token == "sesame"  # noqa: S105 a test's


async def closed(client: Raw) -> tuple[int, str]:
    """Wait for the close frame; its code and reason."""
    with pytest.raises(ConnectionClosedError) as caught:
        await client.receive()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def test_hello(server: Server, logs: Events) -> None:
    """A first message that says who connects is logged and has no reply; a token that nobody asks for is not needed."""
    async with dial(server) as client:
        await client.send(type="hello", client="widget/1.2", locale="de-CH", token="x")
        await client.flush()
    [hello] = [event for event in logs if event["event"] == "hello"]
    assert (hello["client"], hello["locale"]) == ("widget/1.2", "de-CH")
    assert "token" not in hello


async def test_hello_comes_first(server: Server) -> None:
    """A second hello, or one behind another message, is refused, and the connection goes on."""
    async with dial(server) as client:
        await client.send(type="hello")
        await client.send(type="hello")
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == (None, "out_of_order", False)
        await client.flush()
    async with dial(server) as client:
        await client.flush()
        await client.send(type="hello", client="late")
        assert (await client.receive())["code"] == "out_of_order"


async def test_a_valid_token(start_server: ServerFactory) -> None:
    """Where a token is needed, a client that shows it is answered, what it sent in the same breath included."""
    async with start_server(authenticate=check) as server, dial(server) as client:
        await client.send(type="hello", token="sesame")
        await client.ask("1", "Where is my order?")
        assert (await client.receive())["type"] == "answer"
        await client.send(type="hello", token="sesame")
        assert (await client.receive())["code"] == "out_of_order"


@pytest.mark.parametrize(
    "first",
    [
        {"type": "hello", "token": "guess"},
        {"type": "hello"},
        {"type": "ask", "id": "1", "text": "Where is my order?"},
        {"type": "ping"},
        {"type": "hello", "token": ""},
        {"type": "shout"},
    ],
    ids=["wrong token", "no token", "no hello", "a ping", "no message", "unknown type"],
)
async def test_no_valid_token(start_server: ServerFactory, logs: Events, first: dict[str, str]) -> None:
    """Where a token is needed, whoever does not begin with it gets no answer, and a close code not to come back after.

    A second try takes another connection.
    """
    async with start_server(authenticate=check) as server, dial(server) as client:
        await client.websocket.send(json.dumps(first))
        await client.send(type="hello", token="sesame")
        await client.ask("2", "Where is my order?")
        assert await closed(client) == (UNAUTHENTICATED, "begin with a hello that has a valid token")
    assert not [event for event in logs if event["log_level"] in {"warning", "error"}]
    assert "guess" not in str(logs)
