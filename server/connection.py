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
    Overloaded,
    RequestError,
    ShuttingDown,
    TooManyInFlight,
)
from server.messages import (
    SUBPROTOCOL,
    Answer,
    Ask,
    Error,
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
from server.pipeline import Pipeline, Resolved, Running
from server.replies import reply
from server.telemetry import Metrics

_log = structlog.get_logger(__name__)


# How many of a client's frames are looked at before everybody else is: about a millisecond's worth.
FRAMES_AT_A_TIME = 8


class Connection:
    """Serves one websocket.

    Invariants: every accepted `ask` ends in exactly one `answer` or `error`, unless the client leaves first; an id is
    free again before its reply is written; no more than `limits.max_in_flight` tasks live, and none outlives `serve`.

    Args:
        websocket: the open connection.
        pipeline: answers messages.
        limits: what the client may do.
        draining: whether the server is about to stop.
        metrics: told how requests ended.
    """

    def __init__(
        self,
        websocket: ServerConnection,
        pipeline: Pipeline,
        limits: Limits,
        draining: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self._websocket = websocket
        self._pipeline = pipeline
        self._limits = limits
        self._draining = draining
        self._metrics = metrics
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
            handled = 0
            async for frame in self._websocket:
                await self._handle(frame, clock())
                handled += 1
                if handled % FRAMES_AT_A_TIME == 0:
                    await asyncio.sleep(0)  # one client's flood must not hold up timers, and the others
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
            self._metrics.errors[exc.error.code].inc()
            return
        match message:
            case Ping():
                await self._send(Pong(message.id))
            case Ask():
                await self._ask(message, arrived)

    async def _ask(self, ask: Ask, arrived: float) -> None:
        """Answer at once what needs no model, refuse what has to be, and leave the rest to a task of its own."""
        limits = self._limits
        budget = limits.budget_ms if ask.budget_ms is None else ask.budget_ms
        # One out of range is refused below, but not late for it; and it may be more than a float holds.
        deadline = arrived + min(max(budget, limits.min_budget_ms), limits.max_budget_ms) / 1000
        try:
            self._check(ask)
            begun = self._pipeline.begin(ask.text, deadline)
        except DuplicateId as exc:
            await self._reply(error_message(None, exc), arrived, deadline)
        except RequestError as exc:
            self._count(exc)
            await self._reply(error_message(ask.id, exc), arrived, deadline)
        except Exception:  # noqa: BLE001 every ask ends in exactly one reply
            await self._reply(self._failed(ask), arrived, deadline)
        else:
            if isinstance(begun, Resolved):
                await self._reply(self._answer(ask, begun, arrived), arrived, deadline)
                return
            task = asyncio.create_task(self._finish(ask, begun, arrived))
            self._active[ask.id] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # A task that is cancelled before its first step does nothing about its message.
            task.add_done_callback(lambda _: self._pipeline.abandon(begun))

    def _count(self, error: RequestError) -> None:
        refusals = self._metrics.refusals
        match error:
            case Overloaded(queue_full=True):
                refusals["queue_full"].inc()
            case Overloaded():
                refusals["budget"].inc()
            case TooManyInFlight():
                refusals["in_flight"].inc()
            case ShuttingDown():
                refusals["stopping"].inc()

    def _check(self, ask: Ask) -> None:
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

    async def _finish(self, ask: Ask, running: Running, arrived: float) -> None:
        message: Answer | Error
        try:
            message = self._answer(ask, await self._pipeline.finish(running), arrived)
        except RequestError as exc:
            message = error_message(ask.id, exc)
        except Exception:  # noqa: BLE001 every ask ends in exactly one reply
            message = self._failed(ask)
        finally:
            self._active.pop(ask.id, None)
        await self._reply(message, arrived, running.deadline)

    def _answer(self, ask: Ask, resolved: Resolved, arrived: float) -> Answer:
        total = asyncio.get_running_loop().time() - arrived
        answer = reply(ask.id, resolved, self._pipeline.engine.index, total)
        _log.debug("answered", id=ask.id, decision=answer.decision, ms=answer.timing_ms["total"])
        return answer

    @staticmethod
    def _failed(ask: Ask) -> Error:
        _log.exception("message failed", id=ask.id)
        return error_message(ask.id, Internal("the server failed on this message; its log says how"))

    async def _reply(self, message: Answer | Error, arrived: float, deadline: float) -> None:
        await self._send(message)
        now = asyncio.get_running_loop().time()
        if isinstance(message, Error):
            self._metrics.errors[message.code].inc()
        self._metrics.replied("error" if isinstance(message, Error) else "answer", now - arrived, now - deadline)

    async def _send(self, message: ServerMessage) -> None:
        with suppress(ConnectionClosed):  # nobody is left to tell
            await self._websocket.send(encode(message))
