"""Guards how connections begin, break and end: subprotocols, frames, clients that leave, failures, and stopping."""

import asyncio
import json
import re
import socket
import struct
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.typing import Subprotocol

from server.app import Server
from server.errors import ListenError
from tests.server.fakes import Device, until
from tests.server.raw import UNSEEN, UPGRADE, dial

ServerFactory = Any
Events = list[MutableMapping[str, Any]]


def alarming(logs: Events) -> Events:
    """Events that an operator would be woken for."""
    return [event for event in logs if event["log_level"] in {"warning", "error", "critical"}]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["faqwire.v1"], "faqwire.v1"), (["graphql-ws", "faqwire.v1"], "faqwire.v1"), (None, None)],
)
async def test_subprotocol(server: Server, offered: list[Subprotocol] | None, chosen: str | None) -> None:
    """Ours is chosen wherever it is offered; a client that offers none is served all the same."""
    async with dial(server, subprotocols=offered) as client:
        assert client.websocket.subprotocol == chosen
        await client.flush()


async def test_other_subprotocols_are_refused(server: Server) -> None:
    """A client that speaks something else is refused in the handshake, before it misreads anything."""
    with pytest.raises(InvalidStatus) as caught:
        async with dial(server, subprotocols=[Subprotocol("graphql-ws")]):
            pass
    assert caught.value.response.status_code == 400
    assert b"this server speaks faqwire.v1" in (caught.value.response.body or b"")


async def test_oversized_frame(start_server: ServerFactory, logs: Events) -> None:
    """A frame of the limit is read; a longer one closes the connection with 1009."""
    async with start_server(max_frame=256) as server, dial(server) as client:
        await client.websocket.send("x" * 256)
        assert (await client.receive())["code"] == "invalid_message"
        await client.websocket.send("x" * 257)
        with pytest.raises(ConnectionClosedError) as caught:
            await client.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
    assert not alarming(logs)


async def test_invalid_utf8(server: Server, logs: Events) -> None:
    """A text frame that is not UTF-8 closes the connection with 1007."""
    async with dial(server) as client:
        await client.websocket.send(b'{"type":"ping","id":"\xff"}', text=True)
        with pytest.raises(ConnectionClosedError) as caught:
            await client.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1007
    assert not alarming(logs)


async def test_binary_frame(server: Server) -> None:
    """A binary frame is refused like any other that is no message, and the connection goes on."""
    async with dial(server) as client:
        await client.websocket.send(b'{"type":"ping"}')
        error = await client.receive()
        assert (error["id"], error["code"]) == (None, "invalid_message")
        assert "binary" in error["message"]
        await client.flush()


async def test_no_compression(server: Server) -> None:
    """Compression is not agreed on, for it would cost memory on every connection."""
    async with dial(server, compression="deflate") as client:
        assert client.websocket.protocol.extensions == []
        await client.flush()


async def test_client_that_leaves_cancels_its_work(start_held: ServerFactory, device: Device, logs: Events) -> None:
    """What a client asked and has not got never reaches the device once it has left, and nobody is alarmed."""
    async with start_held() as server, dial(server) as staying:
        lanes = server._engine.encoder.sessions
        await staying.occupy(device, lanes)
        async with dial(server) as leaving:
            for number in range(3):
                await leaving.ask(f"{number}", f"{UNSEEN} {number}")
            await leaving.flush()
            assert server._running.pipeline._encode.waiting == 3
        await until(lambda: server._running.pipeline._encode.waiting == 0)
        device.let_go()
        for _ in range(lanes):
            assert (await staying.receive())["type"] == "answer"
        await staying.flush()
        assert len(device.seen) == lanes
    assert not alarming(logs)


async def test_abrupt_disconnect(start_held: ServerFactory, device: Device, logs: Events) -> None:
    """A client that vanishes with a question on the device leaves no trace but room for the next one."""
    async with start_held(max_connections=1) as server:
        async with dial(server) as client:
            await client.ask("1", UNSEEN)
            batch = await device.arrived.get()
            # Closing with a linger of 0 sends a reset in place of a goodbye.
            raw = client.websocket.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.websocket.transport.abort()
        await until(lambda: not server.reception.connections)
        batch.finish()
        async with dial(server) as client:
            await client.flush()
    assert not alarming(logs)


async def test_failure_is_internal_and_the_connection_goes_on(
    start_server: ServerFactory, logs: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception nobody thought of ends its own message as `internal`, is logged with its message's id, no more."""
    async with start_server() as server, dial(server) as client:
        pipeline = server._running.pipeline
        begin = pipeline.begin

        def broken(text: str, deadline: float) -> Any:
            if text == "break":
                raise KeyError("a bug")
            return begin(text, deadline)

        monkeypatch.setattr(pipeline, "begin", broken)
        await client.ask("bad", "break")
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("bad", "internal", True)
        assert "bug" not in error["message"]
        await client.ask("good", "Where is my order?")
        assert (await client.receive())["id"] == "good"
    assert [(event["event"], event["id"]) for event in alarming(logs)] == [("message failed", "bad")]


async def test_failure_after_the_model_is_internal(
    start_server: ServerFactory, logs: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that comes once the message has been encoded; its id is free again."""
    async with start_server() as server, dial(server) as client:
        monkeypatch.setattr("server.connection.reply", lambda *_: 1 / 0)
        await client.ask("1", UNSEEN)
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("1", "internal", True)
        monkeypatch.undo()
        await client.ask("1", UNSEEN)
        assert (await client.receive())["type"] == "answer"
    assert [(event["event"], event["id"]) for event in alarming(logs)] == [("message failed", "1")]


async def test_question_and_goodbye_in_one_piece(start_held: ServerFactory, device: Device, logs: Events) -> None:
    """A client that asks and leaves in one breath: its question is dropped, though nobody has begun to wait for it."""
    ask = json.dumps({"type": "ask", "id": "1", "text": f"{UNSEEN} now"}).encode()
    frames = [Frame(Opcode.TEXT, ask), Frame(Opcode.CLOSE, Close(1000, "").serialize())]
    async with start_held() as server, dial(server) as staying:
        lanes = server._engine.encoder.sessions
        await staying.occupy(device, lanes)
        address = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write("\r\n".join(["GET / HTTP/1.1", f"Host: {address.netloc}", *UPGRADE, "", ""]).encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"".join(frame.serialize(mask=True) for frame in frames))
        await reader.read()
        writer.close()
        await writer.wait_closed()
        await until(lambda: len(server.reception.connections) == 1)
        assert server._running.pipeline._encode.waiting == 0
        device.let_go()
        for _ in range(lanes):
            assert (await staying.receive())["type"] == "answer"
        await staying.flush()
        assert len(device.seen) == lanes
    assert not alarming(logs)


async def test_stop_before_start_and_twice(start_server: ServerFactory) -> None:
    """Stopping is done as often as anybody likes; there is an address only while the server listens."""
    async with start_server() as server:
        await server.stop()
        await server.stop()
    unstarted = Server(server._engine, server._settings)
    await unstarted.stop()
    for silent in (server, unstarted):
        with pytest.raises(RuntimeError, match="not listening"):
            _ = silent.url


async def test_busy_port(server: Server, start_server: ServerFactory) -> None:
    """A port that is taken is an error that names it and what to do."""
    port = int(server.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port} cannot be listened on .* choose another --port"):
        async with start_server(port=port):
            pass


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", r"ws://127\.0\.0\.1:\d+/"),  # noqa: S104 what is tested
        ("::1", r"ws://\[::1\]:\d+/"),
        ("localhost", r"ws://(127\.0\.0\.1|\[::1\]):\d+/"),
    ],
)
async def test_url_can_be_connected_to(start_server: ServerFactory, host: str, url: str) -> None:
    """Whatever host a server listens on, its address is one to connect to."""
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with start_server(host=host) as server, dial(server) as client:
        await client.flush()
        assert re.fullmatch(url, server.url)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
