"""The messages of `faqwire.v1`, their encoding and decoding; no I/O. `docs/protocol.md` explains them.

msgspec validates when it decodes, not when it constructs: what the server sends is right because it is typed. AsyncAPI
and JSON Schema are generated from these types and their docstrings: see `server.schema`.
"""

import contextlib
from typing import Annotated, get_args

import msgspec
from msgspec import Meta

from intents.cascade import Confirmation
from intents.decide import DecisionKind
from server.errors import InvalidMessage, RequestError, UnknownType

SUBPROTOCOL = "faqwire.v1"
MAX_ID = 64
MAX_COMMENT = 2000

# In characters, that is Unicode code points.
Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Ref = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
ClientName = Annotated[str, Meta(min_length=1, max_length=64)]
Visitor = Annotated[str, Meta(min_length=1, max_length=64)]
Locale = Annotated[str, Meta(min_length=1, max_length=35)]  # as long as RFC 5646 asks to leave room for
Token = Annotated[str, Meta(min_length=1, max_length=8192)]
Comment = Annotated[str, Meta(max_length=MAX_COMMENT)]


class Hello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """Says who connects; where it is sent at all, it is the first message.

    It has no reply of its own.

    Attributes:
        client: name and version of the client's software, such as "widget/1.2"; it is logged.
        locale: the visitor's language, a BCP 47 tag; it is logged.
        visitor: what the site knows its visitor by, 1 to 64 characters; recorded with what is asked and said, so that
            it can be erased.
        token: proves that the client may connect; needed where the server asks for one, not looked at elsewhere.
    """

    client: ClientName | None = None
    locale: Locale | None = None
    visitor: Visitor | None = None
    token: Token | None = None


class Ask(msgspec.Struct, frozen=True, tag_field="type", tag="ask"):
    """Asks a question; it ends in exactly one `answer`, `error` or `cancelled`.

    Attributes:
        id: chosen by the client, 1 to 64 characters; the reply carries it.
        text: what the visitor typed.
        budget_ms: how long the reply may take, from the arrival of this message; null is the server's default.
    """

    id: Id
    text: str
    budget_ms: int | None = None


class Cancel(msgspec.Struct, frozen=True, tag_field="type", tag="cancel"):
    """Ends an `ask` that is not answered yet; it then ends in `cancelled`.

    Attributes:
        id: the id of that `ask`.
    """

    id: Id


class Suggest(msgspec.Struct, frozen=True, tag_field="type", tag="suggest"):
    """Asks for questions that begin with what a visitor is typing.

    Attributes:
        id: chosen by the client, 1 to 64 characters; the reply carries it.
        text: what has been typed so far.
    """

    id: Id
    text: str


class Feedback(msgspec.Struct, frozen=True, tag_field="type", tag="feedback"):
    """Says whether an answer helped.

    Attributes:
        id: chosen by the client, 1 to 64 characters; the reply carries it.
        ref: the `ref` of the answer.
        helpful: whether it helped.
        comment: the visitor's own words, at most 2000 characters, or null.
    """

    id: Id
    ref: Ref
    helpful: bool
    comment: Comment | None = None


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Asks for a `pong`; browsers cannot send the websocket's own pings.

    Attributes:
        id: chosen by the client, 1 to 64 characters, or null; the reply carries it.
    """

    id: Id | None = None


ClientMessage = Hello | Ask | Cancel | Suggest | Feedback | Ping


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
        greeting: the operator's first words to a visitor, Markdown; null where there are none.
        index: the version of the index.
        limits: what the server accepts.
    """

    protocol: str
    faq: str
    language: str
    greeting: str | None
    index: str
    limits: Limits


class EntryView(msgspec.Struct, frozen=True):
    """An entry as clients see it.

    Attributes:
        id: the entry's id.
        question: the canonical way to ask it, plain text.
        answer: Markdown.
        url: where to read more, or null.
    """

    id: str
    question: str
    answer: str
    url: str | None


class CandidateView(msgspec.Struct, frozen=True):
    """An entry that may be meant.

    Attributes:
        id: the entry's id.
        question: the canonical way to ask it, plain text.
        confidence: the probability that it is meant, 0 to 1.
    """

    id: str
    question: str
    confidence: float


class FollowUp(msgspec.Struct, frozen=True):
    """An entry to suggest next.

    Attributes:
        id: the entry's id.
        question: the canonical way to ask it, plain text.
    """

    id: str
    question: str


class Answer(msgspec.Struct, frozen=True, tag_field="type", tag="answer"):
    """The reply to `ask`.

    Attributes:
        id: the request's.
        ref: made by the server, unique across connections and workers; `feedback` names it.
        decision: "answer" and "handoff" name an entry, "clarify" offers candidates, "no_match" does neither.
        text: what to show: the entry's answer, or the operator's words for the decision; Markdown.
        entry: the decided entry, or null.
        confidence: probability that the first candidate's entry is right, 0 to 1.
        candidates: at most three, best first; for "clarify" those to offer.
        follow_ups: entries to suggest next.
        confirmation: what the cross-encoder did.
        timing_ms: milliseconds: "total", and the stages it is made of.
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


class Cancelled(msgspec.Struct, frozen=True, tag_field="type", tag="cancelled"):
    """The end of an `ask` that was cancelled.

    Attributes:
        id: the request's.
    """

    id: str


class Suggestion(msgspec.Struct, frozen=True):
    """An entry that a visitor may be about to ask for.

    Attributes:
        id: the entry's id.
        question: the canonical way to ask it, plain text.
    """

    id: str
    question: str


class Suggestions(msgspec.Struct, frozen=True, tag_field="type", tag="suggestions"):
    """The reply to `suggest`.

    Attributes:
        id: the request's.
        suggestions: at most eight; first those whose question begins with the text, then those in which a later word
            does.
    """

    id: str
    suggestions: tuple[Suggestion, ...]


class Accepted(msgspec.Struct, frozen=True, tag_field="type", tag="accepted"):
    """The reply to `feedback`, once it is recorded durably.

    Attributes:
        id: the request's.
    """

    id: str


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A request failed; the connection goes on.

    Attributes:
        id: the request's; null where it had none that could be read, and where it is the id of another one.
        code: which failure, as a word for programs.
        message: a sentence for the developer of the client.
        retryable: whether the same request may succeed later.
        retry_after_ms: when to try again, in milliseconds, or null.
    """

    id: str | None
    code: str
    message: str
    retryable: bool
    retry_after_ms: int | None


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The reply to `ping`.

    Attributes:
        id: the request's, or null.
    """

    id: str | None


class GoingAway(msgspec.Struct, frozen=True, tag_field="type", tag="going_away"):
    """The server is about to stop, and this client is to go to another one at a moment of its own.

    Attributes:
        reconnect_after_ms: when that is, in milliseconds from this message. Until then everything is answered; then the
            client asks no more here, waits for its replies, closes, and connects again.
    """

    reconnect_after_ms: int


ServerMessage = Welcome | Answer | Cancelled | Suggestions | Accepted | Error | Pong | GoingAway

# What answers each client message, beside `error`, which may answer any of them.
REPLIES: dict[type[msgspec.Struct], tuple[type[msgspec.Struct], ...]] = {
    Hello: (),
    Ask: (Answer, Cancelled),
    Cancel: (Cancelled,),
    Suggest: (Suggestions,),
    Feedback: (Accepted,),
    Ping: (Pong,),
}


def tag_of(message: type[msgspec.Struct]) -> str:
    """The `type` of a message."""
    return str(message.__struct_config__.tag)


_CLIENT_TYPES = {tag_of(message) for message in get_args(ClientMessage)}
_SERVER_TYPES = {tag_of(message) for message in get_args(ServerMessage)}


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
        return _decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise _explain(frame, exc) from None


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


def decode_server(frame: str | bytes) -> ServerMessage | None:
    """Decode what a server sent; for clients.

    Returns:
        The message; None for one of a type that this version does not know.

    Raises:
        msgspec.MsgspecError: it is not a message of this protocol.
    """
    try:
        try:
            return _server_decoder.decode(frame)
        except msgspec.ValidationError:
            if _envelope.decode(frame).type in {None, *_SERVER_TYPES}:
                raise
            return None
    except (UnicodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc


def error_message(request_id: str | None, error: RequestError) -> Error:
    """The wire form of an error."""
    return Error(request_id, error.code, str(error), error.retryable, error.retry_after_ms)
