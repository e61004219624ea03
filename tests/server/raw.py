"""A client with nothing between the test and the wire: frames as they are, requests byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from server.app import Server
from server.messages import SUBPROTOCOL
from tests.server.fakes import Device

# It equals no phrasing of the shop's, and so has to be encoded.
UNSEEN = "please tell me where my order is"


class Raw:
    """An open connection, its welcome already read."""

    def __init__(self, websocket: ClientConnection, welcome: dict[str, Any]) -> None:
        self.websocket = websocket
        self.welcome = welcome

    async def send(self, **message: Any) -> None:
        """Send a message."""
        await self.websocket.send(json.dumps(message))

    async def ask(self, request_id: str, text: str, **more: Any) -> None:
        """Send an `ask`."""
        await self.send(type="ask", id=request_id, text=text, **more)

    async def reply_to(self, request_id: str, text: str) -> dict[str, Any]:
        """Ask, and receive what comes next."""
        await self.ask(request_id, text)
        return await self.receive()

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        frame = await self.websocket.recv()
        assert isinstance(frame, str), "messages are text frames"
        message: dict[str, Any] = json.loads(frame)
        return message

    async def occupy(self, device: Device, lanes: int) -> None:
        """Ask until every lane of the device is busy; the questions have the ids "lane 0" and so on, and differ."""
        for lane in range(lanes):
            await self.ask(f"lane {lane}", f"{UNSEEN}, number {lane}")
            await device.arrived.get()

    async def flush(self) -> None:
        """Wait until the server has looked at everything that was sent; nothing else may be on its way back."""
        await self.send(type="ping", id="flush")
        assert await self.receive() == {"type": "pong", "id": "flush"}


@asynccontextmanager
async def dial(server: Server | str, **options: Any) -> AsyncIterator[Raw]:
    """Connect and read the welcome; options are those of `websockets`."""
    options = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "compression": None, "proxy": None, **options}
    url = server if isinstance(server, str) else server.url
    async with connect(url, **options) as websocket:
        yield Raw(websocket, json.loads(await websocket.recv()))


@dataclass(frozen=True)
class Reply:
    """A plain HTTP response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def facts(self) -> dict[str, Any]:
        """The body as JSON."""
        facts: dict[str, Any] = json.loads(self.body)
        return facts


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def get(server: Server, path: str, *headers: str, host: str | None = None) -> Reply:
    """Send one GET, and read the response up to its body; a switch of protocols is read no further."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        lines = [f"GET {path} HTTP/1.1", f"Host: {host or address.netloc}", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        status = int(head[0].split()[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = "" if status == 101 else (await reader.read()).decode()
        return Reply(status, fields, body)
    finally:
        writer.close()
        await writer.wait_closed()
