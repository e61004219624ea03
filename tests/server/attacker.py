"""Sends what `tests.server.hostile` makes to a running server, and sees whether all that comes back is in order."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.hostile import FIN, PING, Attack, frame
from tests.server.raw import Raw, dial

# What a client must never be told: where in which file, of which class, at which address.
_INTERNAL = re.compile(r"Traceback|\.py\b|, line \d|site-packages|object at 0x|msgspec|Error\b")
# How many attacks are sent before their replies are waited for.
AT_A_TIME = 16
# How long the server may take for these.
PATIENCE = 60.0


@dataclass
class Tally:
    """What was sent, and what came of it.

    Attributes:
        sent: attacks by kind.
        replies: messages by type, errors by code.
        ends: how connections ended, by the attack's kind and the code.
        statuses: how requests were answered, by kind and status; 0 is no response.
        problems: what should not have been, the first of each kind.
    """

    sent: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, int]] = field(default_factory=Counter)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)

    def complain(self, problem: str, example: object) -> None:
        """Remember a problem."""
        self.problems.setdefault(problem, str(example)[:500])


class Judge:
    """Says whether a server's message is one, and fit for a client.

    Args:
        schema: `docs/schema.json`.
        tally: where it goes.
    """

    def __init__(self, schema: dict[str, Any], tally: Tally) -> None:
        defined = schema["$defs"]
        names = [one["$ref"].rpartition("/")[2] for one in defined["ServerMessage"]["oneOf"]]
        self._validators = {
            defined[name]["properties"]["type"]["enum"][0]: Draft202012Validator(
                {"$defs": defined, "$ref": f"#/$defs/{name}"}
            )
            for name in names
        }
        self._tally = tally

    def take(self, text: str | bytes) -> dict[str, Any]:
        """Look at a message, and count it."""
        message: dict[str, Any] = json.loads(text)
        kind = message["type"]
        validator = self._validators.get(kind)
        if isinstance(text, bytes) or validator is None or not validator.is_valid(message):
            self._tally.complain("a message is none by the schema", text)
        if kind == "error":
            if message["code"] == "internal":
                self._tally.complain("the server failed on a message", text)
            if _INTERNAL.search(message["message"]):
                self._tally.complain("an error tells of the inside", text)
            kind = message["code"]
        self._tally.replies[kind] += 1
        return message


class Attacker:
    """One client at a time that behaves as badly as it can.

    Args:
        url: the server's address.
        judge: looks at what comes back.
        tally: counts.
        limited: whether the server limits the pace: it may refuse connections, and close them as too fast.
    """

    def __init__(self, url: str, judge: Judge, tally: Tally, *, limited: bool = False) -> None:
        self._url = url
        self._judge = judge
        self._tally = tally
        self._limited = limited

    async def run(self, attacks: Iterator[Attack]) -> None:
        """Send them all, over as many connections as that needs."""
        while (first := next(attacks, None)) is not None:
            try:
                async with dial(self._url) as client:
                    await client.send(type="hello", client="attacker")  # has no reply; a second one has
                    await self._use_up(client, first, attacks)
            except InvalidStatus as exc:
                self._refused(exc)
                await asyncio.sleep(float(exc.response.headers.get("Retry-After", "1")))

    async def _use_up(self, client: Raw, first: Attack, attacks: Iterator[Attack]) -> None:
        """Send attacks until one ends the connection, or there are no more."""
        attack: Attack | None = first
        while attack is not None:
            async with asyncio.timeout(PATIENCE):
                waiting = 0
                while attack is not None and not attack.ends and waiting < AT_A_TIME:
                    self._tally.sent[attack.kind] += 1
                    client.websocket.transport.write(attack.wire)
                    waiting += 1
                    attack = next(attacks, None)
                if await self._has_ended(client, waiting):
                    return
                if attack is not None and attack.ends:
                    await self._end(client, attack)
                    return

    def _refused(self, refusal: InvalidStatus) -> None:
        status = refusal.response.status_code
        self._tally.statuses["handshake", status] += 1
        if not self._limited or status != 429:
            self._tally.complain("a handshake is refused", status)

    async def _has_ended(self, client: Raw, waiting: int) -> bool:
        """Wait for one reply to each of so many messages, and then for none.

        Returns:
            Whether the connection has ended instead, because all this was too fast.
        """
        try:
            while waiting > 0:
                reply = self._judge.take(await client.websocket.recv())
                # The end of a question that is cancelled is the reply to two messages.
                waiting -= 2 if reply["type"] == "cancelled" else 1
            await client.send(type="ping", id="flush")
            reply = self._judge.take(await client.websocket.recv())
            if reply["id"] != "flush":
                self._tally.complain("there are more replies than messages", reply)
        except ConnectionClosed:
            code = int(client.websocket.close_code or 0)
            self._tally.ends["too fast", code] += 1
            if not self._limited or code != 4401:
                self._tally.complain("a connection ends without a reason", f"{code} {client.websocket.close_reason}")
            return True
        return False

    async def _end(self, client: Raw, attack: Attack) -> None:
        self._tally.sent[attack.kind] += 1
        transport = client.websocket.transport
        transport.write(attack.wire)
        if attack.last:
            transport.write_eof()
        with suppress(ConnectionClosed):
            while True:
                self._judge.take(await client.websocket.recv())
        code = int(client.websocket.close_code or 0)
        self._tally.ends[attack.kind, code] += 1
        if code not in attack.ends and not (self._limited and code == 4401):
            self._tally.complain(f"{attack.kind} ends with {code}", attack.wire[:100])

    async def flood(self, first: int, count: int) -> None:
        """Send so many control frames without ever waiting, then see whether the connection lives.

        Args:
            first: the frames' first octet.
            count: how many.
        """
        wire = frame(first, b"flood") * 500
        async with asyncio.timeout(PATIENCE), dial(self._url) as client:
            for _ in range(count // 500):
                client.websocket.transport.write(wire)
                await asyncio.sleep(0)
            self._tally.sent["ping flood" if first == FIN | PING else "pong flood"] += count
            await self._has_ended(client, 0)

    async def ask_wrongly(self, request: Attack) -> None:
        """Send a request that is no handshake, and read its response, if there is one."""
        place = urlsplit(self._url)
        status = 0
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                writer.write(request.wire)
                if request.last:
                    writer.write_eof()
                async with asyncio.timeout(PATIENCE):
                    response = await reader.read()
                if found := re.match(rb"HTTP/1\.1 (\d+) ", response):
                    status = int(found[1])
                if _INTERNAL.search(response.decode("latin-1")):
                    self._tally.complain("a response tells of the inside", response)
            finally:
                writer.transport.abort()
        self._tally.sent["requests"] += 1
        self._tally.statuses[request.kind, status] += 1
        if status == 101 or status in {500, 502, 503, 504}:  # 505 is the answer to an old version of HTTP
            self._tally.complain(f"{request.kind} is answered with {status}", request.wire[:200])
