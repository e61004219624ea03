"""What can go wrong while serving; the root of the tree is `export.errors.FaqwireError`.

FaqwireError
+-- SettingsError           a setting is unknown or out of its range
+-- ListenError             the port cannot be listened on
+-- ClientError             the Python client cannot reach a server, or got an error from it
+-- JournalError            the journal cannot be opened, read or written
|   +-- NotStored           ... and so a feedback was not accepted
+-- RequestError            one request failed; becomes an `error` message, and its class says which:
    |                       code                    retryable
    +-- InvalidMessage      invalid_message         no
    +-- UnknownType         unknown_type            no
    +-- InvalidText         invalid_text            no
    +-- InvalidBudget       invalid_budget          no
    +-- DuplicateId         duplicate_id            no
    +-- NotInFlight         not_in_flight           no
    +-- OutOfOrder          out_of_order            no
    +-- NotRecorded         not_recorded            no
    +-- RecordingFailed     recording_failed        yes
    +-- TooManyInFlight     too_many_in_flight      yes
    +-- RateLimited         rate_limited            yes
    +-- Overloaded          overloaded              yes
    +-- DeadlineExceeded    deadline_exceeded       yes
    +-- ShuttingDown        shutting_down           yes
    +-- Internal            internal                yes
"""

from typing import ClassVar

from export.errors import FaqwireError


class SettingsError(FaqwireError):
    """A setting is unknown, or its value is not one it may have."""


class ListenError(FaqwireError):
    """The server cannot listen where it was told to."""


class ClientError(FaqwireError):
    """The Python client cannot reach a server, or was refused by it.

    Args:
        message: a sentence for whoever runs the client.
        again: whether the same may succeed on another connection.
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class JournalError(FaqwireError):
    """The journal cannot be opened, read or written; the sentence says why, and never has a password in it.

    Args:
        message: the sentence.
        passing: whether it may be over without anybody's doing: a lock, a full disk, a database that restarts.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class NotStored(JournalError):
    """A feedback is not in the journal, or nobody can tell whether it is; sending it again is safe."""


class RequestError(FaqwireError):
    """One request failed; the connection goes on.

    Args:
        message: a sentence for the developer of the client.
        retry_after_ms: when to try again, or None where that cannot be told.
    """

    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class InvalidMessage(RequestError):
    """The frame is not a message of the protocol."""

    code = "invalid_message"


class UnknownType(RequestError):
    """The message's type is not one that a client may send."""

    code = "unknown_type"


class InvalidText(RequestError):
    """The text is empty or too long."""

    code = "invalid_text"


class InvalidBudget(RequestError):
    """The budget is outside of the server's limits."""

    code = "invalid_budget"


class DuplicateId(RequestError):
    """A request with this id is still being answered."""

    code = "duplicate_id"


class NotInFlight(RequestError):
    """There is no question with this id to cancel; it may have been answered just now."""

    code = "not_in_flight"


class OutOfOrder(RequestError):
    """A `hello` that is not the connection's first message."""

    code = "out_of_order"


class NotRecorded(RequestError):
    """This server keeps no feedback."""

    code = "not_recorded"


class RecordingFailed(RequestError):
    """Feedback cannot be recorded now, or nobody can tell whether it was; sending it again is safe."""

    code = "recording_failed"
    retryable = True


class TooManyInFlight(RequestError):
    """The connection has too many unanswered requests."""

    code = "too_many_in_flight"
    retryable = True


class RateLimited(RequestError):
    """The connection sends messages too fast."""

    code = "rate_limited"
    retryable = True


class Overloaded(RequestError):
    """The server has more to do than it can: there is no room to wait, or no time.

    Args:
        message: a sentence for the developer of the client.
        retry_after_ms: when what waits now will have been done.
        queue_full: whether it is room that lacks.
    """

    code = "overloaded"
    retryable = True

    def __init__(self, message: str, *, retry_after_ms: int, queue_full: bool = False) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.queue_full = queue_full


class DeadlineExceeded(RequestError):
    """The budget was spent before anything was known about the message."""

    code = "deadline_exceeded"
    retryable = True


class ShuttingDown(RequestError):
    """The server is about to stop."""

    code = "shutting_down"
    retryable = True


class Internal(RequestError):
    """The server failed; its log says how."""

    code = "internal"
    retryable = True
