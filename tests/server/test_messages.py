"""Guards `server.messages`: what is on the wire, and what is made of frames that are no messages."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import Overloaded, TooManyInFlight
from server.messages import (
    MAX_COMMENT,
    MAX_ID,
    Accepted,
    Answer,
    Ask,
    Cancel,
    Cancelled,
    CandidateView,
    ClientMessage,
    EntryView,
    Error,
    Feedback,
    FollowUp,
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
    decode_server,
    encode,
    error_message,
)

# JSON carries every character but halves of surrogate pairs.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_ID)
SHARES = st.floats(0, 1)
INTS = st.integers(0, 1 << 60)


def texts(most: int, least: int = 1) -> st.SearchStrategy[str]:
    """Texts of so many characters."""
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=most)


REQUESTS = st.one_of(
    st.builds(Hello, st.none() | texts(64), st.none() | texts(35), st.none() | texts(99)),
    st.builds(Ask, IDS, TEXTS, st.none() | INTS),
    st.builds(Cancel, IDS),
    st.builds(Suggest, IDS, TEXTS),
    st.builds(Feedback, IDS, IDS, st.booleans(), st.none() | texts(MAX_COMMENT, 0)),
    st.builds(Ping, st.none() | IDS),
)

LIMITS = st.builds(Limits, INTS, INTS, INTS, INTS, INTS, INTS)
ANSWERS = st.builds(
    Answer,
    IDS,
    TEXTS,
    st.sampled_from(["answer", "clarify", "no_match", "handoff"]),
    TEXTS,
    st.none() | st.builds(EntryView, TEXTS, TEXTS, TEXTS, st.none() | TEXTS),
    SHARES,
    st.lists(st.builds(CandidateView, TEXTS, TEXTS, SHARES), max_size=3).map(tuple),
    st.lists(st.builds(FollowUp, TEXTS, TEXTS), max_size=3).map(tuple),
    st.sampled_from(["disabled", "not_needed"]),
    st.dictionaries(TEXTS, st.floats(0, 1e6)),
    TEXTS,
)
REPLIES = st.one_of(
    st.builds(Welcome, TEXTS, TEXTS, TEXTS, st.none() | TEXTS, TEXTS, LIMITS),
    ANSWERS,
    st.builds(Cancelled, IDS),
    st.builds(Suggestions, IDS, st.lists(st.builds(Suggestion, TEXTS, TEXTS), max_size=3).map(tuple)),
    st.builds(Accepted, IDS),
    st.builds(Error, st.none() | IDS, TEXTS, TEXTS, st.booleans(), st.none() | INTS),
    st.builds(Pong, st.none() | IDS),
    st.builds(GoingAway, INTS),
)


@given(REQUESTS)
def test_what_a_client_encodes_the_server_decodes(message: ClientMessage) -> None:
    """Every message that a client may send comes out of a round trip as it went in."""
    assert decode(encode(message)) == message


@given(REPLIES)
def test_what_the_server_encodes_a_client_decodes(message: ServerMessage) -> None:
    """Every message that the server may send comes out of a round trip as it went in, null fields included."""
    frame = encode(message)
    assert decode_server(frame) == message
    assert set(json.loads(frame)) == {"type", *message.__struct_fields__}


def test_unknown_fields_are_ignored() -> None:
    """A client of a later version may send more than this server knows."""
    assert decode('{"type":"ask","id":"1","text":"hi","mood":{"deep":[1]},"budget_ms":7}') == Ask("1", "hi", 7)


def test_ping_needs_no_id() -> None:
    """A ping may leave its id out."""
    assert decode('{"type":"ping"}') == Ping(None)


# What the server must survive: the frame, the id to answer to, the code, a word of the sentence.
MALFORMED: dict[str, tuple[str | bytes, str | None, str, str]] = {
    "binary": (b'{"type":"ping"}', None, "invalid_message", "binary"),
    "empty": ("", None, "invalid_message", "truncated"),
    "not JSON": ("where is my order", None, "invalid_message", "malformed"),
    "two messages": ('{"type":"ping"}{"type":"ping"}', None, "invalid_message", "trailing"),
    "a list": ('[{"type":"ping"}]', None, "invalid_message", "Expected `object`"),
    "null": ("null", None, "invalid_message", "Expected `object`"),
    "no type": ('{"id":"a","text":"hi"}', "a", "invalid_message", "`type`"),
    "type is a number": ('{"type":1,"id":"a"}', None, "invalid_message", "`$.type`"),
    "unknown type": ('{"type":"talk","id":"a"}', "a", "unknown_type", "'talk' is not known; send one of ask, cancel, "),
    "unknown type without id": ('{"type":"talk"}', None, "unknown_type", "'talk'"),
    "a server's type": ('{"type":"pong","id":"a"}', "a", "unknown_type", "'pong'"),
    "long unknown type": (json.dumps({"type": "x" * 9999, "id": "a"}), "a", "unknown_type", "x" * 40 + "'"),
    "unknown type, id too long": (json.dumps({"type": "x", "id": "i" * 65}), None, "unknown_type", "'x'"),
    "no id": ('{"type":"ask","text":"hi"}', None, "invalid_message", "`id`"),
    "null id": ('{"type":"ask","id":null,"text":"hi"}', None, "invalid_message", "`$.id`"),
    "id is a number": ('{"type":"ask","id":5,"text":"hi"}', None, "invalid_message", "`$.id`"),
    "empty id": ('{"type":"ask","id":"","text":"hi"}', None, "invalid_message", "length >= 1 - at `$.id`"),
    "empty id of a ping": ('{"type":"ping","id":""}', None, "invalid_message", "length >= 1 - at `$.id`"),
    "id too long": (json.dumps({"type": "ask", "id": "i" * 65, "text": "hi"}), None, "invalid_message", "<= 64"),
    "no id to cancel": ('{"type":"cancel"}', None, "invalid_message", "`id`"),
    "nothing typed": ('{"type":"suggest","id":"a"}', "a", "invalid_message", "`text`"),
    "no ref": ('{"type":"feedback","id":"a","helpful":true}', "a", "invalid_message", "`ref`"),
    "long ref": (
        json.dumps({"type": "feedback", "id": "a", "ref": "r" * 65, "helpful": True}),
        "a",
        "invalid_message",
        "`$.ref`",
    ),
    "no opinion": ('{"type":"feedback","id":"a","ref":"r","helpful":null}', "a", "invalid_message", "`$.helpful`"),
    "long comment": (
        json.dumps({"type": "feedback", "id": "a", "ref": "r", "helpful": True, "comment": "c" * (MAX_COMMENT + 1)}),
        "a",
        "invalid_message",
        "`$.comment`",
    ),
    "long name of a client": (json.dumps({"type": "hello", "client": "c" * 65}), None, "invalid_message", "`$.client`"),
    "no text": ('{"type":"ask","id":"a"}', "a", "invalid_message", "`text`"),
    "text is a number": ('{"type":"ask","id":"a","text":5}', "a", "invalid_message", "`$.text`"),
    "budget is text": ('{"type":"ask","id":"a","text":"t","budget_ms":"9"}', "a", "invalid_message", "`$.budget_ms`"),
    "budget is a fraction": ('{"type":"ask","id":"a","text":"t","budget_ms":9.5}', "a", "invalid_message", "float"),
    "budget is a truth": ('{"type":"ask","id":"a","text":"t","budget_ms":true}', "a", "invalid_message", "bool"),
    "budget is infinite": ('{"type":"ask","id":"a","text":"t","budget_ms":1e999}', "a", "invalid_message", "range"),
    "surrogate in text": (r'{"type":"ask","id":"a","text":"\ud83d is half"}', None, "invalid_message", "surrogate"),
    "low surrogate in text": (r'{"type":"ask","id":"a","text":"\udc00"}', None, "invalid_message", "surrogate"),
    "surrogate in id": (r'{"type":"ping","id":"\udfff is half"}', None, "invalid_message", "surrogate"),
    "surrogate in the frame": ('{"type":"ping","id":"\ud800"}', None, "invalid_message", "surrogates not allowed"),
    "NUL in text": ('{"type":"ask","id":"a","text":"\0"}', None, "invalid_message", "malformed"),
    "nested deeply": (
        '{"type":"ask","id":"a","text":"hi","more":' + "[" * 9999 + "]" * 9999 + "}",
        None,
        "invalid_message",
        "nested too deeply",
    ),
    "nested deeply, never closed": ('{"type":"ping","more":' + '{"a":' * 9999, None, "invalid_message", "too deeply"),
}


@pytest.mark.parametrize(("frame", "request_id", "code", "says"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_frames(frame: str | bytes, request_id: str | None, code: str, says: str) -> None:
    """A frame that is no message is refused with its code, a sentence, and the id where one can be trusted."""
    with pytest.raises(Undecodable) as caught:
        decode(frame)
    assert caught.value.request_id == request_id
    assert caught.value.error.code == code
    assert not caught.value.error.retryable
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300
    encode(error_message(caught.value.request_id, caught.value.error))  # what is wrong can be told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ALMOST = st.fixed_dictionaries(
    {"type": st.sampled_from(["hello", "ask", "cancel", "suggest", "feedback", "ping", "pong"]) | JSON},
    optional={
        **dict.fromkeys(("id", "text", "ref", "comment"), JSON | TEXTS),
        **dict.fromkeys(("budget_ms", "helpful", "client", "locale", "token"), JSON),
    },
)


@given(st.text() | st.binary() | (ALMOST | JSON).map(json.dumps))
def test_decode_gives_a_message_or_says_what_is_wrong(frame: Any) -> None:
    """Whatever the frame, `decode` returns a valid message or raises `Undecodable`, and either can be replied to."""
    try:
        message = decode(frame)
    except Undecodable as exc:
        encode(error_message(exc.request_id, exc.error))
        return
    assert decode(encode(message)) == message


def test_errors_on_the_wire() -> None:
    """An error carries its class's code and whether and when to try again."""
    assert error_message("7", Overloaded("full", retry_after_ms=12)) == Error("7", "overloaded", "full", True, 12)
    assert error_message(None, TooManyInFlight("wait")) == Error(None, "too_many_in_flight", "wait", True, None)


@given(st.text() | st.binary() | (ALMOST | JSON).map(json.dumps))
def test_a_client_survives_whatever_comes(frame: Any) -> None:
    """Whatever the frame, `decode_server` returns a message or None, or raises msgspec's own error."""
    with suppress(msgspec.MsgspecError):
        decode_server(frame)


@pytest.mark.parametrize("frame", ['{"type":"answer","id":"1"}', "{}", "[]", '{"type":5}', '{"type":"x","more":[[['])
def test_a_client_refuses_what_no_server_sends(frame: str) -> None:
    """An answer that lacks a field is not taken for one, nor is what has no type."""
    with pytest.raises(msgspec.MsgspecError):
        decode_server(frame)


def test_a_client_ignores_later_types() -> None:
    """A message of a type that a later server may send is none for this client."""
    assert decode_server('{"type":"typing","id":"1","more":[{}]}') is None
