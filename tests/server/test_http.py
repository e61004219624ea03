"""Guards `server.http` over real sockets: the probes, and who may open a websocket."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from server.app import Server
from server.close_codes import TRY_AGAIN_LATER
from server.http import STALLED_SECONDS
from tests.server.fakes import Device
from tests.server.raw import UNSEEN, UPGRADE, dial, get
from tests.server.test_counting import scraped

ServerFactory = Any
SWITCHED = 101


async def test_healthz(server: Server) -> None:
    """A working process says so, as JSON that nobody may keep, and closes the connection."""
    reply = await get(server, "/healthz")
    assert (reply.status, reply.facts) == (200, {"problem": None})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["connection"] == "close"


async def test_readyz(server: Server) -> None:
    """A ready server says what it answers with."""
    reply = await get(server, "/readyz?verbose=1")
    assert reply.status == 200
    assert reply.facts == {
        "problem": None,
        "index": server._engine.index.manifest.version,
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "variant": server._engine.encoder.variant,
        "provider": "CPUExecutionProvider",
        "cross_encoder": None,
        "degraded": None,
    }


async def test_probes_while_draining(start_held: ServerFactory, device: Device) -> None:
    """A server that finishes what is in flight is healthy and not ready, and takes no new connection."""
    async with start_held() as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        batch = await device.arrived.get()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        reply = await get(server, "/readyz")
        assert (reply.status, reply.facts["problem"]) == (503, "draining")
        assert (await get(server, "/healthz")).status == 200
        reply = await get(server, "/", *UPGRADE)
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert reply.body == "The server is about to stop.\n"
        batch.finish()
        await stopping


async def test_hanging_model_is_neither_healthy_nor_ready(
    start_held: ServerFactory, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a batch has been on the device for too long both probes say so, and they recover with it."""
    async with start_held() as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        batch = await device.arrived.get()
        monkeypatch.setattr(server._running.lanes, "longest_run", lambda: STALLED_SECONDS + 1)
        for path in ("/healthz", "/readyz"):
            reply = await get(server, path)
            assert reply.status == 503
            assert reply.facts["problem"] == "a batch has been running for over 10 s"
        monkeypatch.undo()
        batch.finish()
        await client.receive()
        assert (await get(server, "/healthz")).status == 200


async def test_page_requests(server: Server) -> None:
    """Whoever comes with a browser is told what this is; other paths are not found."""
    reply = await get(server, "/")
    assert (reply.status, reply.headers["upgrade"]) == (426, "websocket")
    assert "connect a websocket to /" in reply.body
    assert (await get(server, "/favicon.ico")).status == 404


@pytest.mark.parametrize("path", ["/ws", "//", "/healthz/", "/%00", "//[", "/?a=//["])
async def test_websocket_path(server: Server, path: str) -> None:
    """A websocket is opened at the root and nowhere else, however the path is twisted; a query does not matter."""
    expected = SWITCHED if path.startswith("/?") else 404
    assert (await get(server, path, *UPGRADE)).status == expected


OWN, HOST = "http://127.0.0.1:{port}", "127.0.0.1:{port}"

# The page's origins, those the operator lists, the Host header, and whether the websocket opens.
ORIGINS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str, bool]] = {
    "no browser": ((), (), HOST, True),
    "own": ((OWN,), (), HOST, True),
    "own, by localhost": (("http://localhost:{port}",), (), "localhost:{port}", True),
    "own, by IPv6": (("http://[::1]:{port}",), (), "[::1]:{port}", True),
    "own, by a name that leads here": (("http://rebound.example:{port}",), (), "rebound.example:{port}", False),
    "own, of another scheme": (("ftp://127.0.0.1:{port}",), (), HOST, False),
    "own host, other port": (("http://127.0.0.1:1",), (), HOST, False),
    "own host, no port": (("http://127.0.0.1",), (), HOST, False),
    "foreign": (("https://evil.example",), (), HOST, False),
    "foreign, own name in front": ((OWN + ".evil.example",), (), HOST, False),
    "foreign, own name as user": (("http://" + HOST + "@evil.example",), (), HOST, False),
    "opaque": (("null",), (), HOST, False),
    "empty": (("",), (), HOST, False),
    "not an address": (("http://[::1",), (), HOST, False),
    "listed": (("https://shop.example",), ("https://shop.example",), HOST, True),
    "listed, in other case, with a slash": (("https://shop.example",), ("https://Shop.Example/",), HOST, True),
    "listed under another scheme": (("http://shop.example",), ("https://shop.example",), HOST, False),
    "listed, two at once": (("https://shop.example", "https://evil.example"), ("https://shop.example",), HOST, False),
    "own, two at once": ((OWN, OWN), ("*",), HOST, False),
    "all": (("https://evil.example",), ("*",), HOST, True),
    "opaque, all": (("null",), ("*",), HOST, True),
}


@pytest.mark.parametrize(("origins", "allowed", "host", "opens"), ORIGINS.values(), ids=ORIGINS)
async def test_origins(
    start_server: ServerFactory, origins: tuple[str, ...], allowed: tuple[str, ...], host: str, *, opens: bool
) -> None:
    """A browser's page may connect from the server's own origin or a listed one, and no other."""
    async with start_server(allowed_origins=allowed) as server:
        port = server.url.rstrip("/").rpartition(":")[2]
        headers = [f"Origin: {origin.format(port=port)}" for origin in origins]
        reply = await get(server, "/", *UPGRADE, *headers, host=host.format(port=port))
        assert reply.status == (SWITCHED if opens else 403)
        assert opens or "allowed_origins" in reply.body


async def test_origin_of_a_public_server(start_server: ServerFactory) -> None:
    """A server that others can reach is known by any name: the page's and the request's have to be the same."""
    async with start_server(host="0.0.0.0") as server:  # noqa: S104 what is tested
        own = await get(server, "/", *UPGRADE, "Origin: https://Chat.Shop.example", host="chat.shop.example")
        assert own.status == SWITCHED
        foreign = await get(server, "/", *UPGRADE, "Origin: https://evil.example", host="chat.shop.example")
        assert foreign.status == 403


async def test_two_upgrades(server: Server, logs: list[Any]) -> None:
    """A header that comes twice is the client's affair, and no failure of the server."""
    headers = (*UPGRADE[1:], "Upgrade: h2c", "Upgrade: websocket")
    assert (await get(server, "/", *headers)).status in {SWITCHED, 400, 426}
    assert not [event for event in logs if event["log_level"] == "error"]


async def test_two_hosts(server: Server) -> None:
    """A page cannot make an origin the server's own by naming a host of its own beside the real one."""
    reply = await get(server, "/", *UPGRADE, "Host: evil.example", "Origin: https://evil.example", host="evil.example")
    assert 400 <= reply.status < 500


async def test_required_origin(start_server: ServerFactory) -> None:
    """Where an origin is required, whoever names none is refused like a foreign page; the server's own still passes."""
    async with start_server(require_origin=True, metrics_port=0) as server:
        assert (await get(server, "/", *UPGRADE)).status == 403
        assert (await get(server, "/", *UPGRADE, "Origin: https://evil.example")).status == 403
        own = "Origin: http" + server.url.removeprefix("ws").rstrip("/")
        assert (await get(server, "/", *UPGRADE, own)).status == SWITCHED
        assert (await scraped(server))("refusals_total", reason="origin") == 2


def by(forwarded: str) -> dict[str, Any]:
    """Options of `dial` for a client behind proxies that wrote this."""
    return {"additional_headers": {"X-Forwarded-For": forwarded}}


async def test_limit_of_an_address(start_server: ServerFactory) -> None:
    """A client has so many connections, by the address that a trusted proxy names; others are not concerned.

    What the client itself put in front of that does not make it another one.
    """
    limits = {"max_connections_per_address": 2, "trusted_proxies": ("127.0.0.0/8",), "metrics_port": 0}
    async with (
        start_server(**limits) as server,
        dial(server, **by("203.0.113.7")),
        dial(server, **by("198.51.100.1, 203.0.113.7")),
    ):
        reply = await get(server, "/", *UPGRADE, "X-Forwarded-For: 192.0.2.1, 203.0.113.7")
        assert (reply.status, reply.headers["retry-after"]) == (429, "5")
        assert reply.body == "This address has as many connections as one may have.\n"
        twice = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 203.0.113.7")
        assert (await get(server, "/", *UPGRADE, *twice)).status == 429
        assert (await scraped(server))("refusals_total", reason="connections_per_address") == 2
        async with dial(server, **by("203.0.113.8")) as other:
            await other.flush()
        async with dial(server, **by("2001:db8::1")), dial(server, **by("2001:db8::2")):
            assert (await get(server, "/", *UPGRADE, "X-Forwarded-For: 2001:db8::3")).status == 429
            async with dial(server, **by("2001:db8:0:1::1")) as other:
                await other.flush()


async def test_forged_address(start_server: ServerFactory, logs: list[Any]) -> None:
    """A client that is no trusted proxy cannot name its own address; the operator is told once that somebody tried."""
    async with start_server(max_connections_per_address=1) as server, dial(server):
        for address in ("203.0.113.7", "203.0.113.8"):
            assert (await get(server, "/", *UPGRADE, f"X-Forwarded-For: {address}")).status == 429
    assert len([event for event in logs if "trusted_proxies" in event["event"]]) == 1


async def test_rate_of_an_address(start_server: ServerFactory) -> None:
    """Who connects too often is told when to come back."""
    async with start_server(connection_burst=2, connections_per_second=0.01, metrics_port=0) as server:
        for _ in range(2):
            async with dial(server) as client:
                await client.flush()
        reply = await get(server, "/", *UPGRADE)
        assert reply.status == 429
        assert 90 <= int(reply.headers["retry-after"]) <= 100
        assert (await scraped(server))("refusals_total", reason="connection_rate") == 1


async def test_handshakes_at_the_same_time(
    start_server: ServerFactory, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several that were admitted when there was room for one, the others are closed with 1013, and counted."""
    async with start_server(max_connections=1, metrics_port=0) as server, dial(server) as client:
        monkeypatch.setattr(server.reception.admission, "refuse", lambda _: None)
        with pytest.raises(ConnectionClosedError) as caught:
            async with dial(server):
                pass
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == TRY_AGAIN_LATER
        await client.flush()
        assert server.reception.admission.open == 1
        assert (await scraped(server))("refusals_total", reason="connections") == 1
    assert not [event for event in logs if event["log_level"] in {"warning", "error"}]


async def test_connection_limit(start_server: ServerFactory) -> None:
    """A connection too many is refused with a time to come back; one that leaves makes room."""
    async with start_server(max_connections=2) as server, dial(server):
        async with dial(server):
            reply = await get(server, "/", *UPGRADE)
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")
            assert reply.body == "The server has as many connections as it takes.\n"
            assert (await get(server, "/healthz")).status == 200
        async with dial(server) as client:
            await client.flush()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/9\r\n\r\n",
    ],
)
async def test_what_is_no_request(server: Server, request_bytes: bytes, logs: list[Any]) -> None:
    """Bytes that are no GET, a TLS greeting say, end their own connection; nothing is logged as a failure."""
    port = int(server.url.rstrip("/").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes)
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    async with dial(server) as client:
        await client.flush()
    assert not [event for event in logs if event["log_level"] in {"warning", "error"}]
