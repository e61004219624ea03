"""Guards `server.idling` and what else has a time limit, over real sockets: who says nothing is not kept."""

import asyncio
import math
from urllib.parse import urlsplit

from server.close_codes import IDLE, UNAUTHENTICATED
from tests.server.conftest import ServerFactory
from tests.server.fakes import Device
from tests.server.raw import UNSEEN, dial
from tests.server.test_counting import scraped
from tests.server.test_hello import check, closed


async def test_idle(start_server: ServerFactory) -> None:
    """A connection on which no message comes is closed with a code to come back after; it counts once."""
    async with start_server(idle_seconds=0.05, metrics_port=0) as server, dial(server) as client:
        assert await closed(client) == (IDLE, "no message came for long; connect again to ask")
        assert (await scraped(server))("closings_total", reason="idle") == 1


async def test_what_is_not_idle(start_held: ServerFactory, device: Device) -> None:
    """Neither who waits for an answer nor who has just sent a ping is idle."""
    clock = asyncio.get_running_loop().time
    async with start_held() as server, dial(server) as client:
        [connection] = server.reception.connections
        await client.ask("1", UNSEEN)
        batch = await device.arrived.get()
        connection.dismiss_if_idle(math.inf)
        batch.finish()
        assert (await client.receive())["id"] == "1"
        before = clock()
        await client.flush()
        connection.dismiss_if_idle(before)
        await client.flush()
        connection.dismiss_if_idle(math.inf)
        assert (await closed(client))[0] == IDLE


async def test_no_hello(start_server: ServerFactory) -> None:
    """Where a token is needed, who shows none in time is closed as one whose token is not valid."""
    async with start_server(authenticate=check, hello_seconds=0.05, metrics_port=0) as server, dial(server) as client:
        assert (await closed(client))[0] == UNAUTHENTICATED
        assert (await scraped(server))("closings_total", reason="unauthenticated") == 1


async def test_no_handshake(start_server: ServerFactory) -> None:
    """Who connects and asks for nothing is cut off."""
    async with start_server(handshake_seconds=0.05) as server:
        address = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
