"""Guards `server.handshakes`: whoever connects and does not go on cannot hold as many connections as it likes."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from server.address import Proxies, parse_networks
from server.app import Server
from server.handshakes import HandshakeCause, Handshakes
from tests.server.conftest import ServerFactory
from tests.server.fakes import Clock, sample, until
from tests.server.raw import UPGRADE, dial, get

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@given(st.lists(st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2", "10.0.0.1", None]), st.booleans()), max_size=80))
def test_counts_are_kept(events: list[tuple[str | None, bool]]) -> None:
    """Whoever comes and goes, no bound is passed, nobody is refused without need, and nothing is left behind."""
    refused: list[HandshakeCause] = []
    proxies = Proxies(parse_networks(["10.0.0.0/8"]))
    handshakes = Handshakes(most=5, most_per_address=2, proxies=proxies, on_refused=refused.append)
    under_way: list[tuple[str | None, str]] = []
    for peer, coming in events:
        known = Counter(peer for peer, _ in under_way)
        if coming:
            full = len(under_way) >= 5
            crowded = peer in {"192.0.2.1", "192.0.2.2"} and known[peer] >= 2
            place = handshakes.begin(peer)
            assert (place is None) == (full or crowded)
            if place is None:
                assert refused.pop() == ("handshakes" if full else "handshakes_per_address")
            else:
                under_way.append((peer, place))
        elif known[peer]:
            index = next(index for index, (whose, _) in enumerate(under_way) if whose == peer)
            handshakes.end(under_way.pop(index)[1])
        assert len(handshakes) == len(under_way)
    assert not refused
    for _, place in under_way:
        handshakes.end(place)
    assert len(handshakes) == 0
    assert not handshakes._of


def test_a_network_counts_as_one() -> None:
    """All addresses of one IPv6 network of 64 bits share a bound."""
    handshakes = Handshakes(most=9, most_per_address=1, proxies=Proxies([]), on_refused=lambda _: None)
    assert handshakes.begin("2001:db8::1") is not None
    assert handshakes.begin("2001:db8::2") is None
    assert handshakes.begin("2001:db8:0:1::1") is not None


@asynccontextmanager
async def silent(server: Server, context: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """A connection on which nothing is asked for."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(
        address.hostname, address.port, ssl=context, server_hostname=None if context is None else "localhost"
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def cut_off(wire: Wire) -> bool:
    """Whether the server ends a connection without a word."""
    try:
        return await wire[0].read() == b""
    except ConnectionError:
        return True


async def test_too_many_of_an_address(start_server: ServerFactory) -> None:
    """Further ones are cut off at once and counted; one that leaves makes room, and so does one that goes on."""
    async with start_server(max_connections_per_address=2) as server, AsyncExitStack() as stack:
        first = await stack.enter_async_context(silent(server))
        second = await stack.enter_async_context(silent(server))
        await until(lambda: len(server.reception.handshakes) == 2)
        assert await cut_off(await stack.enter_async_context(silent(server)))
        assert sample(server._metrics, "refusals_total", reason="handshakes_per_address") == 1
        first[1].write("\r\n".join(["GET / HTTP/1.1", "Host: localhost", *UPGRADE, "", ""]).encode())
        assert b" 101 " in await first[0].readuntil(b"\r\n\r\n")
        async with dial(server) as client:
            await client.flush()
        second[1].transport.abort()
        await until(lambda: len(server.reception.handshakes) == 0)
    assert sample(server._metrics, "refusals_total", reason="handshakes_per_address") == 1


async def test_too_many_in_all(start_server: ServerFactory) -> None:
    """So it is with all addresses together; connections that are open and plain requests do not add up."""
    async with start_server(max_handshakes=1, trusted_proxies=["127.0.0.1"]) as server, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(dial(server))
            assert (await get(server, "/healthz")).status == 200
            await until(lambda: len(server.reception.handshakes) == 0)
        await stack.enter_async_context(silent(server))
        await until(lambda: len(server.reception.handshakes) == 1)
        assert await cut_off(await stack.enter_async_context(silent(server)))
        assert sample(server._metrics, "refusals_total", reason="handshakes") == 1


async def test_a_trusted_proxy(start_server: ServerFactory) -> None:
    """Behind a proxy everybody has its address, and it has no bound of its own."""
    settings = {"trusted_proxies": ["127.0.0.1"], "max_connections_per_address": 1}
    async with start_server(**settings) as server, AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(silent(server))
        async with dial(server) as client:
            await client.flush()
        await until(lambda: len(server.reception.handshakes) == 5)


async def test_refused_handshakes_are_over(start_server: ServerFactory) -> None:
    """Whatever a request ends in, it is no longer under way."""
    async with start_server(max_handshakes=1) as server:
        for path, *headers in (["/"], ["/nowhere"], ["/", *UPGRADE, "Origin: https://other.example"], ["/healthz"]):
            await get(server, path, *headers)
            await until(lambda: len(server.reception.handshakes) == 0)
        async with dial(server) as client:
            await client.flush()


async def test_handshakes_that_take_too_long_are_over(start_server: ServerFactory) -> None:
    """So it is where one is cut off for taking too long: it makes room, and was not refused."""
    async with start_server(max_handshakes=1, handshake_seconds=0.05) as server:
        for _ in range(2):
            async with silent(server) as wire:
                assert await cut_off(wire)
            await until(lambda: len(server.reception.handshakes) == 0)
        assert sample(server._metrics, "refusals_total", reason="handshakes") == 0


async def test_stopping_with_handshakes_under_way(start_server: ServerFactory, clock: Clock) -> None:
    """A server stops all the same, and those that it had turned away leave nothing that would be waited for."""
    async with start_server(max_handshakes=1) as server, AsyncExitStack() as stack:
        await stack.enter_async_context(silent(server))
        await until(lambda: len(server.reception.handshakes) == 1)
        assert await cut_off(await stack.enter_async_context(silent(server)))
        assert len(server._listener._servers[0].handler_tasks) == 1  # type: ignore[union-attr]
        stopping = asyncio.create_task(server.stop())

        def stopped() -> bool:
            clock.now += 0.01
            return stopping.done()

        await until(stopped)
        assert await stopping
