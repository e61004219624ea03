"""What there is to tell of an ask once its reply has been written: whose it was, how it ended, where its time went.

All of it is put together from what is known by then, so that a message that nobody looks at closely costs nothing.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from intents.decide import DecisionKind
from server.messages import Answer, Cancelled, Error
from server.pipeline import Running
from server.telemetry import ReplyType, Stage
from server.work import Request


class Lap(NamedTuple):
    """A stage that a message went through, or the writing of its reply.

    Attributes:
        stage: which.
        began: when, in seconds on the event loop's clock.
        seconds: how long it took, or had taken when the message was given up.
    """

    stage: Stage | Literal["write"]
    began: float
    seconds: float


class Ended(msgspec.Struct, frozen=True, gc=False):
    """An ask and its one reply. Times are seconds on the event loop's clock.

    Attributes:
        connection: the connection's id.
        reply: what the client got.
        arrived: when the ask's frame came.
        made, written: when the reply was there, and when it had been written.
        deadline: by when it should have been.
        running: how the models came to it; None where they were not asked.
    """

    connection: str
    reply: Answer | Error | Cancelled
    arrived: float
    made: float
    written: float
    deadline: float
    running: Running | None = None

    @property
    def seconds(self) -> float:
        """From the arrival of the ask until its reply was written."""
        return self.written - self.arrived

    @property
    def outcome(self) -> ReplyType:
        """The reply's type."""
        match self.reply:
            case Answer():
                return "answer"
            case Error():
                return "error"
            case Cancelled():
                return "cancelled"

    @property
    def decision(self) -> DecisionKind | None:
        """What was decided; None where the reply is no answer."""
        return self.reply.decision if isinstance(self.reply, Answer) else None

    @property
    def code(self) -> str | None:
        """The code of its error; None where the reply is none."""
        return self.reply.code if isinstance(self.reply, Error) else None

    def laps(self) -> list[Lap]:
        """The stages that it went through, in their order. What lies between two of them is the event loop's."""
        laps = [] if self.running is None else list(_laps(self.running, self.made))
        return [*laps, Lap("write", self.made, self.written - self.made)]


def _laps(running: Running, made: float) -> Iterator[Lap]:
    took, request, confirming = running.stages, running.request, running.confirming
    yield Lap("tokenize", request.arrived - took["tokenize"], took["tokenize"])
    if "search" in took:
        left = request.arrived + took["queue"]
        yield Lap("queue", request.arrived, took["queue"])
        yield Lap("encode", left, took["encode"])
        yield Lap("search", left + took["encode"], took["search"])
    else:
        yield from _unfinished(request, made, "queue", "encode")
    decided = running.decided
    if confirming is not None and "confirm" in took:
        yield Lap("confirm_queue", confirming.arrived, took["confirm_queue"])
        yield Lap("confirm", confirming.arrived + took["confirm_queue"], took["confirm"])
    elif confirming is not None:
        until = made if decided is None else decided - took["decide"]
        yield from _unfinished(confirming, until, "confirm_queue", "confirm")
    if decided is not None:
        yield Lap("decide", decided - took["decide"], took["decide"])


def _unfinished(request: Request[Any, Any], until: float, waited: Stage, ran: Stage) -> Iterator[Lap]:
    """How far a request had come when it was given up; what it shares with others may have gone on since."""
    left = max(request.arrived, request.left) if 0 < request.left <= until else until
    yield Lap(waited, request.arrived, max(0.0, left - request.arrived))
    if left < until:
        yield Lap(ran, left, until - left)
