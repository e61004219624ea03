"""One client's life: greeted, answered as often as it asks, and forgotten."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from websockets.exceptions import ConnectionClosed

from server.authentication import Authenticate, expiry_of
from server.close_codes import EXPIRED, GOING_AWAY, IDLE, TOO_FAST, UNAUTHENTICATED
from server.ended import Ended
from server.errors import (
    DuplicateId,
    Internal,
    InvalidText,
    NotInFlight,
    NotRecorded,
    NotStored,
    OutOfOrder,
    RateLimited,
    RecordingFailed,
    RequestError,
    ShuttingDown,
    TooManyInFlight,
)
from server.limits import check_ask, check_length, seconds_for
from server.messages import (
    SUBPROTOCOL,
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
    Limits,
    Ping,
    Pong,
    ServerMessage,
    Suggest,
    Suggestion,
    Suggestions,
    Undecodable,
    Welcome,
    decode,
    encode,
    error_message,
)
from server.pipeline import Pipeline, Resolved, Running
from server.recorder import Feedback as FeedbackRecord
from server.recorder import Recorder
from server.replies import record_of, reply
from server.telemetry import Closing, Metrics
from server.websocket import Websocket

_log = structlog.get_logger(__name__)


# How many of a client's frames are looked at before everybody else is: about a millisecond's worth.
FRAMES_AT_A_TIME = 8
# What is known of a client that says nothing of itself.
_NO_HELLO = Hello()


@dataclass(frozen=True, slots=True)
class InFlight:
    """A question that is being answered, and by what: a server may have another pipeline by now."""

    pipeline: Pipeline
    running: Running
    arrived: float
    task: "asyncio.Task[None]"


class Connection:
    """Serves one websocket.

    Invariants: every accepted `ask` ends in exactly one `answer`, `error` or `cancelled`, unless the client leaves
    first; an id is free again before its reply is written; what was cancelled does not reach a model once `cancelled`
    is written; no more than `limits.max_in_flight` tasks live, and none outlives `serve`.

    Args:
        websocket: the open connection.
        pipeline: gives what answers messages now; a message ends with what it began with.
        limits: what the client may do.
        metrics: told how requests ended.
        hello_seconds: how long the client has for its token, where one is needed.
        recorder: records what is asked and said of answers; None where nothing is.
        authenticate: checks the client's token; None where none is needed.
        watch: shown every ask whose reply has been written; None where nobody looks.
    """

    def __init__(
        self,
        websocket: Websocket,
        pipeline: Callable[[], Pipeline],
        limits: Limits,
        metrics: Metrics,
        *,
        hello_seconds: float,
        recorder: Recorder | None = None,
        authenticate: Authenticate | None = None,
        watch: Callable[[Ended], None] | None = None,
    ) -> None:
        self._websocket = websocket
        self._pipeline = pipeline
        self._limits = limits
        self._pace = websocket.pace
        self._metrics = metrics
        self._hello_seconds = hello_seconds
        self._recorder = recorder
        self._authenticate = authenticate
        self._watch_ended = watch
        self._hello = _NO_HELLO
        self._id = websocket.id.hex
        self._heard = asyncio.get_running_loop().time()  # when the last message came
        self._greeted = False
        self._farewell: GoingAway | None = None  # once the client is to go
        self._leaving = False
        self._active: dict[str, InFlight | None] = {}  # by id; None is a request that cannot be cancelled
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> frozenset[asyncio.Task[None]]:
        """The requests that are being answered."""
        return frozenset(self._tasks)

    def abort(self) -> None:
        """Cut the connection off, without a goodbye."""
        self._websocket.transport.abort()

    def dismiss_if_idle(self, since: float) -> None:
        """Begin to close it if no message came since then, and none is being answered."""
        if self._heard < since and not self._tasks:
            self._dismiss("idle", IDLE, "no message came for long; connect again to ask")

    def dismiss_if_expired(self, now: float) -> None:
        """Begin to close it if its client's token is valid no more; what is being answered then has no end.

        Args:
            now: seconds since 1970.
        """
        if now >= self._websocket.expires:
            self._dismiss("expired", EXPIRED, "the token has expired; connect again with another one")

    async def go_away(self, after: float) -> None:
        """Tell the client to go after so many seconds, though not before it is greeted; cancelling is safe."""
        self._farewell = GoingAway(round(1000 * after))
        if self._greeted:
            await self._send(self._farewell)

    def leave(self) -> None:
        """Take no more requests, and begin to close the connection as soon as none is in flight."""
        self._leaving = True
        if not self._tasks:
            self._websocket.dismiss(GOING_AWAY, "the server is stopping")

    async def serve(self) -> None:
        """Serve until the client leaves or the connection is closed; what is in flight then is cancelled."""
        clock = asyncio.get_running_loop().time
        opened = clock()
        _log.debug("connection opened", connection=self._id, address=self._websocket.client)
        try:
            await self._send(self._welcome())
            self._greeted = True
            if self._farewell is not None:
                await self._send(self._farewell)
            if self._authenticate is not None and not await self._is_authentic(self._authenticate):
                self._dismiss("unauthenticated", UNAUTHENTICATED, "begin with a hello that has a valid token")
                return
            handled = 0
            async for frame in self._websocket:
                self._heard = clock()
                await self._handle(frame, self._heard, first=handled == 0 and self._authenticate is None)
                if self._pace.flooding:
                    self._dismiss("too_fast", TOO_FAST, "messages come too fast, and refusals are not heeded")
                    return
                handled += 1
                if handled % FRAMES_AT_A_TIME == 0:
                    await asyncio.sleep(0)  # one client's flood must not hold up timers, and the others
        except ConnectionClosed:
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            seconds = round(clock() - opened, 3)
            _log.debug("connection closed", connection=self._id, code=self._websocket.close_code, seconds=seconds)
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _welcome(self) -> Welcome:
        index = self._pipeline().engine.index
        header = index.faq.header
        return Welcome(SUBPROTOCOL, header.name, header.language, header.greeting, index.manifest.version, self._limits)

    async def _is_authentic(self, authenticate: Authenticate) -> bool:
        """Whether the first message comes in time, and is a `hello` with a token that is valid."""
        try:
            async with asyncio.timeout(self._hello_seconds):
                message = decode(await self._websocket.recv())
        except (TimeoutError, Undecodable):
            return False
        if not isinstance(message, Hello) or message.token is None:
            return False
        verdict = await authenticate(message.token)
        if not verdict:
            return False
        self._websocket.expires = expiry_of(verdict)
        self._meet(message)
        return True

    def _meet(self, hello: Hello) -> None:
        self._hello = Hello(hello.client, hello.locale, hello.visitor)  # the token is a secret, and has done its work
        _log.debug("hello", connection=self._id, client=hello.client, locale=hello.locale)

    def _dismiss(self, why: Closing, code: int, reason: str) -> None:
        if self._websocket.dismiss(code, reason):
            self._metrics.closings[why].inc()

    async def _handle(self, frame: str | bytes, arrived: float, *, first: bool) -> None:
        refusal = self._pace.check(arrived)
        if refusal is not None:
            self._metrics.refused(refusal)
        try:
            message = decode(frame)
        except Undecodable as exc:
            await self._refuse(exc.request_id, refusal or exc.error)
            return
        if refusal is not None:
            await self._turn_away(message, refusal, arrived)
            return
        try:
            await self._take(message, arrived, first=first)
        except (DuplicateId, NotInFlight, OutOfOrder) as exc:  # what they name is another request, or none
            await self._refuse(None, exc)

    async def _turn_away(self, message: ClientMessage, refusal: RateLimited, arrived: float) -> None:
        """Refuse a message that came too fast."""
        match message:
            case Ask() if message.id not in self._active:
                deadline = arrived + seconds_for(message, self._limits)
                await self._reply(error_message(message.id, refusal), arrived, deadline)
            case Cancel() | Hello():  # the id is that of another request, or there is none
                await self._refuse(None, refusal)
            case _:
                await self._refuse(message.id, refusal)

    async def _take(self, message: ClientMessage, arrived: float, *, first: bool) -> None:
        """Do what a message says.

        Raises:
            DuplicateId: its id is that of a request that is still being answered.
            NotInFlight: there is no question to cancel.
            OutOfOrder: it came too late.
        """
        match message:
            case Ask() | Suggest() | Feedback() if message.id in self._active:
                raise DuplicateId(f"id {message.id!r} is still being answered; use each id once")
            case Ask():
                await self._ask(message, arrived)
            case Suggest():
                await self._suggest(message)
            case Cancel():
                await self._cancel(message)
            case Feedback():
                await self._take_feedback(message)
            case Ping():
                await self._send(Pong(message.id))
            case Hello():
                if not first:
                    raise OutOfOrder("a hello comes first on its connection, or not at all")
                self._meet(message)

    async def _ask(self, ask: Ask, arrived: float) -> None:
        """Answer at once what needs no model, refuse what has to be, and leave the rest to a task of its own."""
        deadline = arrived + seconds_for(ask, self._limits)
        try:
            self._admit()
            check_ask(ask, self._limits)
            pipeline = self._pipeline()
            begun = pipeline.begin(ask.text, deadline)
        except RequestError as exc:
            self._metrics.refused(exc)
            await self._reply(error_message(ask.id, exc), arrived, deadline)
        except Exception:  # noqa: BLE001 every ask ends in exactly one reply
            await self._reply(error_message(ask.id, self._failed(ask.id)), arrived, deadline)
        else:
            if isinstance(begun, Resolved):
                await self._reply(self._answer(ask, pipeline, begun, arrived), arrived, deadline)
                return
            task = asyncio.create_task(self._finish(ask, pipeline, begun, arrived))
            self._active[ask.id] = InFlight(pipeline, begun, arrived, task)
            # A task that is cancelled before its first step does nothing about its message.
            task.add_done_callback(lambda _: pipeline.abandon(begun))
            self._watch(task)

    def _watch(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._leaving:
            self.leave()

    async def _cancel(self, cancel: Cancel) -> None:
        asked = self._active.get(cancel.id)
        if asked is None:
            raise NotInFlight(f"no question with the id {cancel.id!r} is in flight; it may have been answered just now")
        del self._active[cancel.id]
        asked.pipeline.abandon(asked.running)
        asked.task.cancel()
        await asyncio.wait({asked.task})  # it may have been confirming; nothing of it goes on from here
        await self._reply(Cancelled(cancel.id), asked.arrived, asked.running.deadline, asked.running)

    async def _suggest(self, suggest: Suggest) -> None:
        try:
            check_length(suggest.text, self._limits)
        except InvalidText as exc:
            await self._refuse(suggest.id, exc)
            return
        found = self._pipeline().suggest(suggest.text)
        await self._send(Suggestions(suggest.id, tuple(Suggestion(entry.id, entry.question) for entry in found)))
        self._metrics.suggests.inc()

    async def _take_feedback(self, feedback: Feedback) -> None:
        try:
            self._admit()
            if self._recorder is None:
                raise NotRecorded("this server records no feedback")
        except RequestError as exc:
            self._metrics.refused(exc)
            await self._refuse(feedback.id, exc)
            return
        self._active[feedback.id] = None
        self._watch(asyncio.create_task(self._record(feedback, self._recorder)))

    async def _record(self, feedback: Feedback, recorder: Recorder) -> None:
        record = FeedbackRecord(feedback.ref, self._id, self._hello.visitor, feedback.helpful, feedback.comment)
        problem: RequestError | None = None
        try:
            await recorder.feedback(record)
        except NotStored as exc:
            _log.warning(
                "feedback is not recorded", connection=self._id, id=feedback.id, ref=feedback.ref, reason=str(exc)
            )
            problem = RecordingFailed("feedback cannot be recorded now; send it again later")
        except Exception:  # noqa: BLE001 every request ends in exactly one reply
            problem = self._failed(feedback.id)
        finally:
            del self._active[feedback.id]
        if problem is not None:
            await self._refuse(feedback.id, problem)
            return
        await self._send(Accepted(feedback.id))
        self._metrics.feedback["helpful" if feedback.helpful else "unhelpful"].inc()

    def _admit(self) -> None:
        """Refuse what may not be in flight beside all that is."""
        if self._leaving:
            raise ShuttingDown("the server is about to stop; connect again")
        if len(self._tasks) >= self._limits.max_in_flight:
            raise TooManyInFlight(
                f"{self._limits.max_in_flight} requests of this connection are unanswered; "
                "wait for some of their replies",
                retry_after_ms=self._limits.budget_ms,
            )

    async def _finish(self, ask: Ask, pipeline: Pipeline, running: Running, arrived: float) -> None:
        message: Answer | Error
        try:
            message = self._answer(ask, pipeline, await pipeline.finish(running), arrived)
        except RequestError as exc:
            message = error_message(ask.id, exc)
        except Exception:  # noqa: BLE001 every ask ends in exactly one reply
            message = error_message(ask.id, self._failed(ask.id))
        finally:
            self._active.pop(ask.id, None)
        await self._reply(message, arrived, running.deadline, running)

    def _answer(self, ask: Ask, pipeline: Pipeline, resolved: Resolved, arrived: float) -> Answer:
        total = asyncio.get_running_loop().time() - arrived
        answer = reply(ask.id, resolved, pipeline.engine.index, total)
        if self._recorder is not None:
            self._recorder.asked(record_of(ask.text, answer, self._id, self._hello.visitor))
        return answer

    def _failed(self, request_id: str) -> Internal:
        _log.exception("message failed", connection=self._id, id=request_id)
        return Internal("the server failed on this message; its log says how")

    async def _reply(
        self, message: Answer | Error | Cancelled, arrived: float, deadline: float, running: Running | None = None
    ) -> None:
        """Write the one reply to an ask, and tell of it."""
        clock = asyncio.get_running_loop().time
        made = clock()
        await self._send(message)
        ended = Ended(self._id, message, arrived, made, clock(), deadline, running)
        outcome, decision, code = ended.outcome, ended.decision, ended.code
        self._metrics.replied(outcome, ended.seconds, ended.written - deadline)
        if code is not None:
            self._metrics.errors[code].inc()
        ms = round(1000 * ended.seconds, 3)
        _log.debug("replied", connection=self._id, id=message.id, outcome=outcome, decision=decision, code=code, ms=ms)
        if self._watch_ended is not None:
            self._watch_ended(ended)

    async def _refuse(self, request_id: str | None, error: RequestError) -> None:
        """Send an error, without the id where that is being answered: it would look like that request's end."""
        await self._send(error_message(None if request_id in self._active else request_id, error))
        self._metrics.errors[error.code].inc()

    async def _send(self, message: ServerMessage) -> None:
        with suppress(ConnectionClosed):  # nobody is left to tell
            await self._websocket.send(encode(message))
