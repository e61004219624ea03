"""One client's life: greeted, answered as often as it asks, and forgotten."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from server.errors import (
    DuplicateId,
    Internal,
    InvalidBudget,
    InvalidText,
    RequestError,
    ShuttingDown,
    TooManyInFlight,
)
from server.messages import (
    SUBPROTOCOL,
    Ask,
    Limits,
    Ping,
    Pong,
    ServerMessage,
    Undecodable,
    Welcome,
    decode,
    encode,
    error_message,
)
from server.pipeline import Pipeline
from server.replies import reply

_log = structlog.get_logger(__name__)


class Connection:
    """Serves one websocket.

    Invariants: every accepted `ask` ends in exactly one `answer` or `error`, unless the client leaves first; an id is
    free again before its reply is written; no more than `limits.max_in_flight` tasks live, and none outlives `serve`.

    Args:
        websocket: the open connection.
        pipeline: answers messages.
        limits: what the client may do.
        draining: whether the server is about to stop.
    """

    def __init__(
        self, websocket: ServerConnection, pipeline: Pipeline, limits: Limits, draining: Callable[[], bool]
    ) -> None:
        self._websocket = websocket
        self._pipeline = pipeline
        self._limits = limits
        self._draining = draining
        self._active: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> frozenset[asyncio.Task[None]]:
        """The requests that are being answered."""
        return frozenset(self._tasks)

    def abort(self) -> None:
        """Cut the connection off, without a goodbye."""
        self._websocket.transport.abort()

    async def serve(self) -> None:
        """Serve until the client leaves or the connection is closed; what is in flight then is cancelled."""
        clock = asyncio.get_running_loop().time
        try:
            await self._send(self._welcome())
            async for frame in self._websocket:
                await self._handle(frame, clock())
        except ConnectionClosed:
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _welcome(self) -> Welcome:
        index = self._pipeline.engine.index
        header = index.faq.header
        return Welcome(SUBPROTOCOL, header.name, header.language, index.manifest.version, self._limits)

    async def _handle(self, frame: str | bytes, arrived: float) -> None:
        try:
            message = decode(frame)
        except Undecodable as exc:
            # An id that is being answered would make this look like that request's end.
            request_id = None if exc.request_id in self._active else exc.request_id
            await self._send(error_message(request_id, exc.error))
            return
        match message:
            case Ping():
                await self._send(Pong(message.id))
            case Ask():
                try:
                    self._accept(message, arrived)
                except DuplicateId as exc:
                    await self._send(error_message(None, exc))
                except RequestError as exc:
                    await self._send(error_message(message.id, exc))

    def _accept(self, ask: Ask, arrived: float) -> None:
        limits = self._limits
        if ask.id in self._active:
            raise DuplicateId(f"id {ask.id!r} is still being answered; use each id once")
        if self._draining():
            raise ShuttingDown("the server is about to stop; connect again")
        if len(self._tasks) >= limits.max_in_flight:
            raise TooManyInFlight(
                f"{limits.max_in_flight} requests of this connection are unanswered; wait for some of their replies",
                retry_after_ms=limits.budget_ms,
            )
        if not ask.text.strip():
            raise InvalidText("text is empty")
        if len(ask.text) > limits.max_text:
            raise InvalidText(f"text has {len(ask.text)} characters; at most {limits.max_text} are read")
        budget = limits.budget_ms if ask.budget_ms is None else ask.budget_ms
        if not limits.min_budget_ms <= budget <= limits.max_budget_ms:
            raise InvalidBudget(f"budget_ms is {budget}; it may be {limits.min_budget_ms} to {limits.max_budget_ms}")
        task = asyncio.create_task(self._answer(ask, arrived, arrived + budget / 1000))
        self._active[ask.id] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, ask: Ask, arrived: float, deadline: float) -> None:
        clock = asyncio.get_running_loop().time
        message: ServerMessage
        try:
            resolved = await self._pipeline.resolve(ask.text, deadline)
            message = reply(ask.id, resolved, self._pipeline.engine.index, clock() - arrived)
            _log.debug("answered", id=ask.id, decision=message.decision, ms=message.timing_ms["total"])
        except RequestError as exc:
            message = error_message(ask.id, exc)
        except Exception:  # noqa: BLE001 every ask ends in exactly one reply
            _log.exception("message failed", id=ask.id)
            message = error_message(ask.id, Internal("the server failed on this message; its log says how"))
        finally:
            self._active.pop(ask.id, None)
        await self._send(message)

    async def _send(self, message: ServerMessage) -> None:
        with suppress(ConnectionClosed):  # nobody is left to tell
            await self._websocket.send(encode(message))
