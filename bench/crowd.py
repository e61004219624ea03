"""Many clients that connect and say nothing more, in a process of their own: all they do is answer websocket pings.

They are as small as they can be, written on asyncio's own protocols: ten thousand of them are to show what they cost
the server, and not themselves. They come from several addresses of this machine, because each has only so many ports.
"""

import asyncio
import multiprocessing
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

# So many clients connect at a time, and so many come from one address.
AT_A_TIME = 200
OF_ONE_ADDRESS = 2000
# Files that a process has open beside its connections.
SPARE = 128
# Seconds after which what was expected is taken not to come.
PATIENCE = 150.0

REQUEST = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: faqwire.v1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n"
    "Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\r\n"
)


def room_for_files(wanted: int) -> int:
    """Raise the soft limit of open files as far as `wanted` connections need; how many there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + SPARE:
        soft = wanted + SPARE if hard == resource.RLIM_INFINITY else min(wanted + SPARE, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - SPARE)


class Idler(asyncio.Protocol):
    """One client.

    Attributes:
        greeted: done once the welcome has come; with an exception where the connection was refused.
        gone: done once the connection has ended.
        pings: how many it has answered.
        code: what the server closed it with; None where it did not.
    """

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.pings = 0
        self.code: int | None = None
        self._request = request
        self._head: bytes | None = b""  # of the HTTP response, until it is complete
        self._reader = StreamReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a websocket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 for the type checker
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take what comes."""
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self._fail(head.partition(b"\r\n")[0].decode(errors="replace"))
                return
            self._head = None
        self._reader.feed_data(data)
        while self._reader.buffer:
            parsing = Frame.parse(self._reader.read_exact, mask=False)
            try:
                next(parsing)
            except StopIteration as stop:
                self._take(stop.value)
            else:
                self._fail("half a frame")  # on loopback each comes whole
                return

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._fail(f"connection lost ({exc})")
        if not self.gone.done():
            self.gone.set_result(None)

    def leave(self) -> None:
        """Say goodbye."""
        self._transport.write(Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=True))

    def _take(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT if not self.greeted.done():
                self.greeted.set_result(None)
            case Opcode.PING:
                self.pings += 1
                self._transport.write(Frame(Opcode.PONG, frame.data).serialize(mask=True))
            case Opcode.CLOSE:
                self.code = Close.parse(frame.data).code
                self._transport.close()

    def _fail(self, reason: str) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError(reason))
        self._transport.close()


@dataclass
class Told:
    """What a crowd says of itself.

    Attributes:
        seconds: how long what it was told took.
        present: how many are connected.
        pings: the fewest pings that any of them has answered.
        failed: one reason for which a connection failed; None where all held.
    """

    seconds: float
    present: int
    pings: int
    failed: str | None


class Crowd:
    """Idle clients in a process of their own; a context manager, which ends it.

    Args:
        url: the server's address.
    """

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(url, theirs), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()

    def come(self, count: int) -> Told:
        """So many connect and read the welcome."""
        return self._tell("come", count)

    def stay(self, pings: int) -> Told:
        """All stay until every one of them has answered so many further pings."""
        return self._tell("stay", pings)

    def leave(self) -> Told:
        """All say goodbye, and wait until they are gone."""
        return self._tell("leave", 0)

    def _tell(self, what: str, number: int) -> Told:
        self._pipe.send((what, number))
        told = self._pipe.recv()
        if not isinstance(told, Told):
            raise SystemExit(f"the idle clients failed: {told}")
        return told


def _live(url: str, pipe: Pipe) -> None:
    """The other process."""
    with suppress(KeyboardInterrupt, EOFError):
        asyncio.run(_obey(url, pipe))


async def _obey(url: str, pipe: Pipe) -> None:
    present: list[Idler] = []
    while True:
        what, number = await asyncio.to_thread(pipe.recv)
        started = time.perf_counter()
        failed: str | None = None
        try:
            match what:
                case "come":
                    await _come(url, number, present)
                case "stay":
                    await _stay(present, number)
                case "leave":
                    await _leave(present)
        except (OSError, TimeoutError) as exc:
            failed = f"{type(exc).__name__}: {exc}"
        codes = {idler.code for idler in present if idler.code is not None}
        failed = failed or (f"closed by the server with {sorted(codes)}" if codes else None)
        seconds = time.perf_counter() - started
        here = sum(not idler.gone.done() for idler in present)
        pipe.send(Told(seconds, here, min((idler.pings for idler in present), default=0), failed))


async def _come(url: str, count: int, present: list[Idler]) -> None:
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or 80
    request = REQUEST.format(host=address.netloc).encode()
    loop, turn = asyncio.get_running_loop(), asyncio.Semaphore(AT_A_TIME)

    async def one(number: int) -> Idler:
        place: dict[str, Any] = {}
        if host == "127.0.0.1":
            place["local_addr"] = (f"127.0.0.{1 + number // OF_ONE_ADDRESS}", 0)
        async with turn:
            _, idler = await loop.create_connection(lambda: Idler(request), host, port, **place)
            await idler.greeted
        return idler

    present += await asyncio.gather(*(one(number) for number in range(count)))


async def _stay(present: list[Idler], pings: int) -> None:
    until = {idler: idler.pings + pings for idler in present}
    async with asyncio.timeout(PATIENCE):
        # Thousands of events to wait for would be work of their own.
        while any(idler.pings < least and not idler.gone.done() for idler, least in until.items()):  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def _leave(present: list[Idler]) -> None:
    for idler in present:
        idler.leave()
    async with asyncio.timeout(PATIENCE):
        for idler in present:
            await idler.gone
    present.clear()
