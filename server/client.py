"""A small typed client: many questions in flight over one connection, which is made again when it is lost."""

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from server.backoff import Backoff
from server.close_codes import may_reconnect
from server.dialling import dial
from server.errors import ClientError
from server.messages import (
    Accepted,
    Answer,
    Ask,
    Cancel,
    Cancelled,
    ClientMessage,
    Error,
    Feedback,
    GoingAway,
    Hello,
    Ping,
    Pong,
    ServerMessage,
    Suggest,
    Suggestions,
    Welcome,
    decode_server,
    encode,
    tag_of,
)

# A connection that held for so many seconds was a good one: delays begin anew after it.
STEADY_SECONDS = 30.0
# How long a server that wants to be left may take for its goodbye: requests wait for the next connection meanwhile.
GOODBYE_SECONDS = 1.0

Reply = Answer | Cancelled | Suggestions | Accepted | Error | Pong
R = TypeVar("R", Answer, Suggestions, Accepted, Pong)


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a connection ended.

    Attributes:
        problem: in words.
        again: whether it is worth connecting again.
    """

    problem: str
    again: bool


class Client:
    """A connection to a faqwire server.

        async with Client("ws://127.0.0.1:8765/") as client:
            reply = await client.ask("where is my order")

    A connection that is lost is made again, after a delay that grows from try to try and is drawn at random; not where
    its close code says that this would not help. Requests that were in flight then fail, and none is sent again by
    itself. Requests that come meanwhile wait for the next connection. Where the server announces that it will stop,
    nothing fails: at the moment that it names, requests begin to wait, and the connection is changed once those in
    flight have ended.

    Cancelling any request is safe: its reply, when it comes, is dropped. Cancelling `ask` tells the server so, which
    then does not spend the model's time on it.

    Args:
        url: the server's address.
        open_timeout: seconds to wait for a connection and its welcome, at first and in every request.
        hello: what to say at the beginning of every connection, a token among it; None says nothing.
        backoff: the delays before connecting again; None is the usual ones.

    Attributes:
        welcome: that of the latest connection.
    """

    welcome: Welcome

    def __init__(
        self, url: str, *, open_timeout: float = 10.0, hello: Hello | None = None, backoff: Backoff | None = None
    ) -> None:
        self._url = url
        self._open_timeout = open_timeout
        self._hello = hello
        self._backoff = backoff or Backoff()
        self._ids = itertools.count(1)
        self._pending: dict[str, asyncio.Future[Reply]] = {}
        self._websocket: asyncio.Future[ClientConnection] | None = None  # the present one, or the next one
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._return_at: float | None = None  # on the event loop's clock; where the server has asked for it
        self._going: ClientConnection | None = None  # takes no more requests
        self._closing = False

    async def __aenter__(self) -> Self:
        """Connect, and wait for the server's welcome.

        Raises:
            ClientError: nobody listens there, or it is not a faqwire server.
        """
        websocket = await self._open()
        self._websocket = asyncio.get_running_loop().create_future()
        self._websocket.set_result(websocket)
        self._keeper = asyncio.create_task(self._keep(websocket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection; what is in flight fails."""
        if self._websocket is None or self._keeper is None:
            return
        self._closing = True
        if self._going is not None:
            await _leave(self._going)
        if self._websocket.done() and self._websocket.exception() is None:
            await self._websocket.result().close()
        self._keeper.cancel()
        await asyncio.gather(self._keeper, *self._tasks, return_exceptions=True)

    async def ask(self, text: str, *, budget_ms: int | None = None, again: bool = False) -> Answer | Error:
        """Ask a question, and wait for its one reply; cancelling tells the server.

        Args:
            text: what the visitor typed.
            budget_ms: how long the reply may take; None is the server's default.
            again: whether to ask once more, on the next connection, whenever the connection is lost before the reply.

        Raises:
            ClientError: there is no connection, or it was lost before the reply.
        """
        while True:
            try:
                return await self._request(Ask(self._next_id(), text, budget_ms), Answer)
            except ClientError as exc:
                if not (again and exc.again):
                    raise
                await asyncio.sleep(0)  # until it is known that the connection is lost

    async def suggest(self, text: str) -> Suggestions | Error:
        """Questions that begin with what a visitor is typing.

        Raises:
            ClientError: as that of `ask`.
        """
        return await self._request(Suggest(self._next_id(), text), Suggestions)

    async def feedback(self, ref: str, *, helpful: bool, comment: str | None = None) -> Accepted | Error:
        """Say whether an answer helped, and wait until that is recorded.

        Args:
            ref: the answer's.
            helpful: whether it helped.
            comment: the visitor's own words, at most `MAX_COMMENT` characters.

        Raises:
            ClientError: as that of `ask`; it may have been recorded all the same.
        """
        return await self._request(Feedback(self._next_id(), ref, helpful, comment), Accepted)

    async def ping(self) -> None:
        """Wait until the server has answered a ping.

        Raises:
            ClientError: as that of `ask`.
        """
        await self._request(Ping(self._next_id()), Pong)

    def _next_id(self) -> str:
        return str(next(self._ids))

    async def _request(self, message: Ask | Suggest | Feedback | Ping, expected: type[R]) -> R | Error:
        request_id = str(message.id)
        websocket = await self._connected()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        try:
            await websocket.send(encode(message))
            reply = await future
        except ConnectionClosed as exc:
            again = may_reconnect(websocket.close_code)
            raise ClientError(f"{self._url} closed the connection ({exc})", again=again) from exc
        except asyncio.CancelledError:
            if isinstance(message, Ask):
                self._cancel(websocket, request_id)
            raise
        finally:
            del self._pending[request_id]
            self._change_if_idle()
            if future.done() and not future.cancelled():
                future.exception()  # has been seen now
        if isinstance(reply, expected | Error):
            return reply
        raise ClientError(f"{self._url} replied to an {tag_of(type(message))} with a {tag_of(type(reply))}")

    def _cancel(self, websocket: ClientConnection, request_id: str) -> None:
        self._beside(_send(websocket, Cancel(request_id)))

    async def _connected(self) -> ClientConnection:
        """The present connection, or the next one."""
        websocket = self._websocket
        if websocket is None:
            raise ClientError("the client is not connected; use it with `async with`")
        if not websocket.done():
            await asyncio.wait({websocket}, timeout=self._open_timeout)
        if not websocket.done():
            raise ClientError(f"{self._url} closed the connection, and has not been reached again yet")
        if (problem := websocket.exception()) is not None:
            raise ClientError(str(problem))
        return websocket.result()

    async def _open(self) -> ClientConnection:
        websocket, self.welcome = await dial(self._url, self._hello, self._open_timeout)
        return websocket

    async def _keep(self, websocket: ClientConnection) -> None:
        """Read the connection, and connect again whenever it is lost, for as long as that is worth it."""
        loop = asyncio.get_running_loop()
        closed = lost = Lost("the client was closed", again=False)
        try:
            while True:
                since = loop.time()
                lost = await self._read(websocket)
                if self._closing:
                    lost = closed
                elif websocket is self._going:
                    lost = Lost(lost.problem, again=True)
                if not lost.again:
                    return
                self._lose(lost)
                self._going = None
                if self._websocket is None or self._websocket.done():
                    self._websocket = loop.create_future()
                if loop.time() - since > STEADY_SECONDS:
                    self._backoff.reset()
                websocket = await self._open_again()
                self._websocket.set_result(websocket)
        except ClientError as exc:
            lost = Lost(str(exc), again=False)
        finally:
            self._lose(lost)
            self._give_up(ClientError(lost.problem))

    def _give_up(self, problem: ClientError) -> None:
        """Tell this to all requests, those that wait for the next connection and those to come."""
        if self._websocket is None or self._websocket.done():
            self._websocket = asyncio.get_running_loop().create_future()
        self._websocket.set_exception(problem)
        self._websocket.exception()  # nobody may ever ask for it

    def _lose(self, lost: Lost) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ClientError(lost.problem, again=lost.again))

    async def _open_again(self) -> ClientConnection:
        """Connect, as often as it takes.

        Raises:
            ClientError: that would not help.
        """
        while True:
            asked, self._return_at = self._return_at, None
            left = self._backoff.next() if asked is None else asked - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, left))
            try:
                return await self._open()
            except ClientError as exc:
                if not exc.again:
                    raise

    async def _read(self, websocket: ClientConnection) -> Lost:
        """Deliver what the server sends, until the connection ends."""
        try:
            async for frame in websocket:
                message = decode_server(frame)
                if isinstance(message, GoingAway):
                    loop = asyncio.get_running_loop()
                    self._return_at = loop.time() + message.reconnect_after_ms / 1000
                    loop.call_at(self._return_at, self._go, websocket)
                else:
                    self._deliver(message)
        except ConnectionClosed:
            pass
        except msgspec.MsgspecError as exc:
            lost = Lost(f"{self._url} sent what is not a message ({exc})", again=False)
            self._lose(lost)
            await websocket.close()  # which may take its time with such a server
            return lost
        reason = f" {websocket.close_reason}" if websocket.close_reason else ""
        problem = f"{self._url} closed the connection ({websocket.close_code}{reason})"
        return Lost(problem, again=may_reconnect(websocket.close_code))

    def _go(self, websocket: ClientConnection) -> None:
        """Let new requests wait for the next connection, for the server wants this one to be left."""
        present = self._websocket
        if present is None or not present.done() or present.exception() is not None or present.result() != websocket:
            return
        self._websocket = asyncio.get_running_loop().create_future()
        self._going = websocket
        self._change_if_idle()

    def _change_if_idle(self) -> None:
        """Close a connection that is to be left, once nothing is in flight; `_keep` then makes the next one."""
        if self._going is not None and not self._pending:
            self._beside(_leave(self._going))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _deliver(self, message: ServerMessage | None) -> None:
        match message:
            case GoingAway() | Welcome() | None:
                pass  # nobody waits for a later kind of message
            case _:
                future = self._pending.get(message.id or "")  # an error may name no request
                if future is not None and not future.done():
                    future.set_result(message)


async def _send(websocket: ClientConnection, message: ClientMessage) -> None:
    with suppress(ConnectionClosed):  # nothing is left to cancel
        await websocket.send(encode(message))


async def _leave(websocket: ClientConnection) -> None:
    try:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await websocket.close()
    except TimeoutError:  # it has stopped already, or is out of reach
        websocket.transport.abort()
