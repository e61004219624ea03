"""Guards `suggest` over real sockets: what is offered while a visitor types."""

import asyncio
from typing import Any

from server.app import Server
from tests.server.conftest import ServerFactory
from tests.server.fakes import Device
from tests.server.raw import UNSEEN, Raw, dial
from tests.server.test_counting import scraped


async def suggested(client: Raw, text: str) -> list[dict[str, Any]]:
    """What is offered for a text."""
    await client.send(type="suggest", id="s", text=text)
    reply = await client.receive()
    assert (reply["type"], reply["id"]) == ("suggestions", "s")
    found: list[dict[str, Any]] = reply["suggestions"]
    return found


async def test_suggestions(start_server: ServerFactory) -> None:
    """Entries whose question continues the text are offered, without a model, and counted."""
    async with start_server(metrics_port=0) as server, dial(server) as client:
        assert await suggested(client, "Where is my o") == [{"id": "track-order", "question": "Where is my order?"}]
        assert await suggested(client, "where is my opera") == []
        assert await suggested(client, "") == []
        await client.flush()
        value = await scraped(server)
        assert value("suggests_total") == 3
        assert value("message_seconds_count", type="answer") == 0


async def test_many_match(server: Server) -> None:
    """No more than eight are offered, each once, and each can be asked for by its question."""
    async with dial(server) as client:
        found = await suggested(client, "h")
        assert len({suggestion["id"] for suggestion in found}) == len(found) == 8
        await client.ask("1", found[0]["question"])
        assert (await client.receive())["entry"]["id"] == found[0]["id"]


async def test_a_long_text(start_server: ServerFactory) -> None:
    """A text that could not be asked is not looked up either."""
    async with start_server(max_text=10) as server, dial(server) as client:
        await client.send(type="suggest", id="s", text="x" * 11)
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("s", "invalid_text", False)


async def test_an_id_that_is_being_answered(start_held: ServerFactory, device: Device) -> None:
    """It is refused without naming it, for a question's end is still to come under it."""
    async with start_held() as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        batch = await device.arrived.get()
        await client.send(type="suggest", id="1", text="where")
        error = await client.receive()
        assert (error["id"], error["code"]) == (None, "duplicate_id")
        batch.finish()
        assert (await client.receive())["type"] == "answer"


async def test_while_a_server_stops(start_held: ServerFactory, device: Device) -> None:
    """It takes nobody's time, and so goes on until the end."""
    async with start_held() as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        await device.arrived.get()
        async with dial(server) as typing:
            await client.flush()
            stopping = asyncio.create_task(server.stop())
            assert (await typing.receive())["type"] == "going_away"
            assert await suggested(typing, "where is my o")
            device.let_go()
            await stopping
