"""A small typed client: many questions in flight over one connection."""

import asyncio
import itertools
from types import TracebackType
from typing import Self

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from server.errors import ClientError
from server.messages import (
    SUBPROTOCOL,
    Answer,
    Ask,
    Error,
    Ping,
    Pong,
    ServerMessage,
    Welcome,
    decode_server,
    encode,
)


class Client:
    """A connection to a faqwire server.

        async with Client("ws://127.0.0.1:8765/") as client:
            reply = await client.ask("where is my order")

    Cancelling `ask` or `ping` is safe: the reply, when it comes, is dropped.

    Args:
        url: the server's address.
        open_timeout: seconds to wait for the connection and its welcome.
    """

    def __init__(self, url: str, *, open_timeout: float = 10.0) -> None:
        self._url = url
        self._open_timeout = open_timeout
        self._ids = itertools.count(1)
        self._pending: dict[str, asyncio.Future[Answer | Error | Pong]] = {}
        self._websocket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self.welcome: Welcome

    async def __aenter__(self) -> Self:
        """Connect, and wait for the server's welcome.

        Raises:
            ClientError: nobody listens there, or it is not a faqwire server.
        """
        greeting: ServerMessage | None = None
        try:
            async with asyncio.timeout(self._open_timeout):
                self._websocket = await connect(
                    self._url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, open_timeout=None, proxy=None
                )
                greeting = decode_server(await self._websocket.recv())
            if not isinstance(greeting, Welcome):
                raise ClientError(f"{self._url} did not begin with a welcome")
        except (OSError, TimeoutError) as exc:
            reason = "no answer in time" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
            raise ClientError(
                f"cannot reach {self._url} ({reason}); is the server running? `faqwire serve` starts one"
            ) from exc
        except (InvalidURI, InvalidHandshake, ConnectionClosed, msgspec.MsgspecError, ValueError, OverflowError) as exc:
            raise ClientError(f"{self._url} is not a faqwire server: {exc}") from exc
        finally:
            if self._websocket is not None and not isinstance(greeting, Welcome):
                self._websocket.transport.abort()  # it may not understand a goodbye either
        self.welcome = greeting
        self._reader = asyncio.create_task(self._read(self._websocket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        if self._websocket is not None:
            await self._websocket.close()
        if self._reader is not None:
            await self._reader

    async def ask(self, text: str, *, budget_ms: int | None = None) -> Answer | Error:
        """Ask a question, and wait for its one reply.

        Raises:
            ClientError: the connection was closed before the reply.
        """
        request_id = str(next(self._ids))
        message = await self._request(request_id, Ask(request_id, text, budget_ms))
        if isinstance(message, Pong):
            raise ClientError(f"{self._url} replied to an ask with a pong")
        return message

    async def ping(self) -> None:
        """Wait until the server has answered a ping.

        Raises:
            ClientError: the connection was closed before the reply.
        """
        request_id = str(next(self._ids))
        await self._request(request_id, Ping(request_id))

    async def _request(self, request_id: str, message: Ask | Ping) -> Answer | Error | Pong:
        if self._websocket is None:
            raise ClientError("the client is not connected; use it with `async with`")
        future = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        try:
            await self._websocket.send(encode(message))
            reply: Answer | Error | Pong = await future
        except ConnectionClosed as exc:
            raise ClientError(f"{self._url} closed the connection ({exc})") from exc
        finally:
            del self._pending[request_id]
        return reply

    async def _read(self, websocket: ClientConnection) -> None:
        problem = "the connection was closed"
        try:
            async for frame in websocket:
                self._deliver(decode_server(frame))
        except ConnectionClosed as exc:
            problem = f"the connection was closed ({exc})"
        except msgspec.MsgspecError as exc:
            problem = f"{self._url} sent what is not a message ({exc})"
        finally:
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(ClientError(problem))
            await websocket.close()  # nobody would read the replies to later requests

    def _deliver(self, message: ServerMessage) -> None:
        match message:
            case Answer(id=request_id) | Error(id=str(request_id)) | Pong(id=str(request_id)):
                future = self._pending.get(request_id)
                if future is not None and not future.done():
                    future.set_result(message)
            case _:
                pass  # nobody waits for it: a later kind of message, or an error that names no request
