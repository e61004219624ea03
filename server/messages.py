"""The messages of `faqwire.v1`, their encoding and decoding; no I/O. `docs/protocol.md` explains them.

msgspec validates when it decodes, not when it constructs: what the server sends is right because it is typed.
"""

import contextlib

import msgspec

from intents.cascade import Confirmation
from intents.decide import DecisionKind
from server.errors import InvalidMessage, RequestError, UnknownType

SUBPROTOCOL = "faqwire.v1"
MAX_ID = 64


class Ask(msgspec.Struct, frozen=True, tag_field="type", tag="ask"):
    """Asks a question.

    Attributes:
        id: chosen by the client, 1 to 64 characters; the reply carries it.
        text: what the visitor typed.
        budget_ms: how long the reply may take, from the arrival of this message; None is the server's default.
    """

    id: str
    text: str
    budget_ms: int | None = None


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Asks for a `pong`; browsers cannot send the websocket's own pings."""

    id: str | None = None


ClientMessage = Ask | Ping


class Limits(msgspec.Struct, frozen=True):
    """What the server accepts on this connection.

    Attributes:
        max_text: characters of a text.
        max_frame: bytes of a frame; a longer one closes the connection with 1009.
        max_in_flight: unanswered requests of this connection.
        min_budget_ms, max_budget_ms: range of a request's own budget.
        budget_ms: the budget of those without one.
    """

    max_text: int
    max_frame: int
    max_in_flight: int
    min_budget_ms: int
    max_budget_ms: int
    budget_ms: int


class Welcome(msgspec.Struct, frozen=True, tag_field="type", tag="welcome"):
    """The first message of every connection.

    Attributes:
        protocol: "faqwire.v1".
        faq: the FAQ's name.
        language: its language, a BCP 47 tag.
        index: the version of the index.
        limits: what the server accepts.
    """

    protocol: str
    faq: str
    language: str
    index: str
    limits: Limits


class EntryView(msgspec.Struct, frozen=True):
    """An entry as clients see it; the answer is Markdown."""

    id: str
    question: str
    answer: str
    url: str | None


class CandidateView(msgspec.Struct, frozen=True):
    """An entry that may be meant, and the probability that it is."""

    id: str
    question: str
    confidence: float


class FollowUp(msgspec.Struct, frozen=True):
    """An entry to suggest next."""

    id: str
    question: str


class Answer(msgspec.Struct, frozen=True, tag_field="type", tag="answer"):
    """The reply to `ask`.

    Attributes:
        id: the request's.
        ref: made by the server, unique across connections and workers.
        decision: "answer" and "handoff" name an entry, "clarify" offers candidates, "no_match" does neither.
        text: what to show: the entry's answer, or the operator's words for the decision; Markdown.
        entry: the decided entry, or None.
        confidence: probability that the first candidate's entry is right.
        candidates: at most three, best first; for "clarify" those to offer.
        follow_ups: entries to suggest next.
        confirmation: what the cross-encoder did.
        timing_ms: "total", and the stages it is made of.
        index: version of the index that answered.
    """

    id: str
    ref: str
    decision: DecisionKind
    text: str
    entry: EntryView | None
    confidence: float
    candidates: tuple[CandidateView, ...]
    follow_ups: tuple[FollowUp, ...]
    confirmation: Confirmation
    timing_ms: dict[str, float]
    index: str


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A request failed.

    Attributes:
        id: the request's; None where it had none that could be read, or where it is the id of another one.
        code: see `server.errors`.
        message: a sentence for the developer of the client.
        retryable: whether the same request may succeed later.
        retry_after_ms: when to try again, or None.
    """

    id: str | None
    code: str
    message: str
    retryable: bool
    retry_after_ms: int | None


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The reply to `ping`, with its id."""

    id: str | None


ServerMessage = Welcome | Answer | Error | Pong

_CLIENT_TYPES = {"ask", "ping"}


class _Envelope(msgspec.Struct):
    """As much of a message as can be read of one that is wrong."""

    type: str | None = None
    id: str | None = None


_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_server_decoder: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
_envelope = msgspec.json.Decoder(_Envelope)
_encoder = msgspec.json.Encoder()


class Undecodable(Exception):
    """A frame that is not a message, with as much of its id as could be read."""

    def __init__(self, request_id: str | None, error: RequestError) -> None:
        self.request_id = request_id
        self.error = error
        super().__init__(str(error))


def decode(frame: str | bytes) -> ClientMessage:
    """Decode what a client sent; unknown fields are ignored.

    Raises:
        Undecodable: it is binary, not JSON, of an unknown type, or breaks the type's rules.
    """
    if isinstance(frame, bytes):
        raise Undecodable(None, InvalidMessage("the frame is binary; messages are JSON in text frames"))
    try:
        message = _decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise _explain(frame, exc) from None
    if message.id is not None and not 1 <= len(message.id) <= MAX_ID:
        raise Undecodable(None, InvalidMessage(f"id has {len(message.id)} characters; it may have 1 to {MAX_ID}"))
    return message


def _explain(frame: str, problem: Exception) -> Undecodable:
    envelope = _Envelope()
    with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        envelope = _envelope.decode(frame)
    request_id = envelope.id if envelope.id is not None and 1 <= len(envelope.id) <= MAX_ID else None
    if envelope.type is not None and envelope.type not in _CLIENT_TYPES:
        kinds = ", ".join(sorted(_CLIENT_TYPES))
        return Undecodable(request_id, UnknownType(f"type {envelope.type[:40]!r} is not known; send one of {kinds}"))
    if isinstance(problem, RecursionError):
        return Undecodable(request_id, InvalidMessage("the message is nested too deeply"))
    return Undecodable(request_id, InvalidMessage(f"not a message of {SUBPROTOCOL}: {problem}"))


def encode(message: ClientMessage | ServerMessage) -> str:
    """Encode a message as the text of one frame."""
    return _encoder.encode(message).decode()


def decode_server(frame: str | bytes) -> ServerMessage:
    """Decode what a server sent; for clients.

    Raises:
        msgspec.MsgspecError: it is not a message of this protocol.
    """
    try:
        return _server_decoder.decode(frame)
    except (UnicodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc


def error_message(request_id: str | None, error: RequestError) -> Error:
    """The wire form of an error."""
    return Error(request_id, error.code, str(error), error.retryable, error.retry_after_ms)
