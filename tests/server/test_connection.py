"""Guards `server.connection` over real sockets, with the real model: what a client asks, and what it gets."""

import re
from typing import Any

import pytest

from server.app import Server
from server.messages import MAX_ID
from tests.server.fakes import Device
from tests.server.raw import UNSEEN, dial

ServerFactory = Any

REFUSED = {"type": "error", "retryable": False, "retry_after_ms": None}


async def test_welcome(start_server: ServerFactory) -> None:
    """The first message says who answers, and every limit of the connection."""
    async with start_server(max_text=77, max_frame=4096, max_in_flight=5) as server, dial(server) as client:
        assert client.welcome == {
            "type": "welcome",
            "protocol": "faqwire.v1",
            "faq": "Tidewater Goods",
            "language": "en",
            "greeting": "Hello! Ask me about orders, delivery, returns and payment at Tidewater Goods.",
            "index": server._engine.index.manifest.version,
            "limits": {
                "max_text": 77,
                "max_frame": 4096,
                "max_in_flight": 5,
                "min_budget_ms": 5,
                "max_budget_ms": 10_000,
                "budget_ms": 10_000,
            },
        }


async def test_answer_has_every_field(server: Server) -> None:
    """An encoded message is answered with everything that clients rely on, each of its own kind."""
    async with dial(server) as client:
        await client.ask("one", UNSEEN, budget_ms=9000)
        answer = await client.receive()
    entry = server._engine.index.entry_by_id("track-order")
    assert entry is not None
    shown = {"id": entry.id, "question": entry.question, "answer": entry.answer, "url": entry.url}
    assert set(answer) == {
        *("type", "id", "ref", "decision", "text", "entry", "confidence", "candidates", "follow_ups"),
        *("confirmation", "timing_ms", "index"),
    }
    assert (answer["type"], answer["id"], answer["decision"]) == ("answer", "one", "answer")
    assert answer["text"] == entry.answer
    assert answer["entry"] == shown
    assert re.fullmatch(r"[\w-]{16,}", answer["ref"])
    assert 0.5 < answer["confidence"] <= 1
    assert answer["candidates"][0] == {**{k: shown[k] for k in ("id", "question")}, "confidence": answer["confidence"]}
    assert 1 <= len(answer["candidates"]) <= 3
    assert [follow_up["id"] for follow_up in answer["follow_ups"]] == list(entry.follow_ups)
    assert answer["confirmation"] == "disabled"
    assert answer["index"] == client.welcome["index"]
    timing = answer["timing_ms"]
    assert set(timing) == {"total", "tokenize", "queue", "encode", "search", "decide"}
    assert timing["total"] >= sum(timing.values()) - timing["total"] - 0.01


async def test_phrasing_is_certain(server: Server) -> None:
    """A message that equals a phrasing is answered for sure, without the model."""
    async with dial(server) as client:
        await client.ask("1", "Where is my order?")
        answer = await client.receive()
    assert (answer["entry"]["id"], answer["confidence"], answer["confirmation"]) == ("track-order", 1.0, "not_needed")


async def test_no_match(server: Server) -> None:
    """A message that no entry answers is told so in the operator's words."""
    async with dial(server) as client:
        await client.ask("1", "what is the boiling point of tungsten in kelvin")
        answer = await client.receive()
    assert (answer["decision"], answer["entry"]) == ("no_match", None)
    assert answer["text"] == server._engine.index.faq.header.texts.no_match


async def test_refs_are_unique(server: Server) -> None:
    """The same question gets a ref of its own each time, also on another connection and under the same id."""
    refs = set()
    for _ in range(2):
        async with dial(server) as client:
            for _ in range(5):
                await client.ask("same", "Where is my order?")
                refs.add((await client.receive())["ref"])
    assert len(refs) == 10


async def test_many_in_flight(start_server: ServerFactory) -> None:
    """Replies to many questions at once come in any order, each exactly once under its own id with its own answer."""
    entries = ["track-order", "place-order"]
    async with start_server(max_in_flight=200) as server, dial(server) as client:
        questions = {entry: server._engine.index.entry_by_id(entry).question for entry in entries}
        for number in range(100):
            await client.ask(f"{number}", f"{questions[entries[number % 2]]} ({number})")
        answers = [await client.receive() for _ in range(100)]
        await client.flush()
    assert sorted(int(answer["id"]) for answer in answers) == list(range(100))
    for answer in answers:
        assert answer["candidates"][0]["id"] == entries[int(answer["id"]) % 2]


async def test_replies_come_in_any_order(start_held: ServerFactory, device: Device) -> None:
    """A question that needs no model overtakes one that waits for it."""
    async with start_held() as server, dial(server) as client:
        await client.ask("slow", UNSEEN)
        batch = await device.arrived.get()
        await client.ask("quick", "Where is my order?")
        assert (await client.receive())["id"] == "quick"
        batch.finish()
        assert (await client.receive())["id"] == "slow"


async def test_unknown_type_is_answered(server: Server) -> None:
    """A message of a later version is refused by its id, and the connection goes on."""
    async with dial(server) as client:
        await client.send(type="whisper", id="s", text="whe")
        error = await client.receive()
        assert {**error, "message": ""} == {**REFUSED, "id": "s", "code": "unknown_type", "message": ""}
        await client.flush()


async def test_no_message_at_all(server: Server) -> None:
    """A frame that is not JSON gets an error without an id, and the connection goes on."""
    async with dial(server) as client:
        await client.websocket.send("{")
        error = await client.receive()
        assert {**error, "message": ""} == {**REFUSED, "id": None, "code": "invalid_message", "message": ""}
        await client.flush()


async def test_duplicate_id(start_held: ServerFactory, device: Device) -> None:
    """An id that is being answered is refused without naming it, for its one reply is still to come; then it is free.

    So is a malformed message under that id.
    """
    async with start_held() as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        batch = await device.arrived.get()
        await client.ask("1", UNSEEN)
        assert {**await client.receive(), "message": ""} == {
            **REFUSED,
            "id": None,
            "code": "duplicate_id",
            "message": "",
        }
        await client.send(type="ask", id="1")
        error = await client.receive()
        assert (error["id"], error["code"]) == (None, "invalid_message")
        batch.finish()
        assert (await client.receive())["type"] == "answer"
        await client.ask("1", "Where is my order?")
        assert (await client.receive())["type"] == "answer"


async def test_same_id_on_two_connections(start_held: ServerFactory, device: Device) -> None:
    """Ids are each connection's own; equal questions of two are one computation, and each gets its answer."""
    async with start_held() as server, dial(server) as one, dial(server) as other:
        await one.ask("1", UNSEEN)
        await other.ask("1", UNSEEN)
        await other.flush()
        (await device.arrived.get()).finish()
        assert (await one.receive())["id"] == (await other.receive())["id"] == "1"
        assert len(device.seen) == 1


async def test_too_many_in_flight(start_held: ServerFactory, device: Device) -> None:
    """A question too many is refused with a time to come back; each reply makes room for another."""
    async with start_held(max_in_flight=2, budget_ms=4321) as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        await client.ask("2", f"{UNSEEN} now")
        await client.ask("3", UNSEEN)
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("3", "too_many_in_flight", True)
        assert error["retry_after_ms"] == 4321
        (await device.arrived.get()).finish()
        assert (await client.receive())["type"] == "answer"
        await client.ask("4", "Where is my order?")
        assert (await client.receive())["id"] == "4"


# What is asked, the code, and a word of the sentence.
UNFIT: dict[str, tuple[dict[str, Any], str, str]] = {
    "empty text": ({"text": ""}, "invalid_text", "text is empty"),
    "blank text": ({"text": " \t\n\u3000"}, "invalid_text", "text is empty"),
    "long text": ({"text": "x" * 1001}, "invalid_text", "1001 characters; at most 1000"),
    "no budget": ({"text": "hi", "budget_ms": 0}, "invalid_budget", "budget_ms is 0; it may be 5 to 10000"),
    "negative budget": ({"text": "hi", "budget_ms": -1}, "invalid_budget", "-1"),
    "small budget": ({"text": "hi", "budget_ms": 4}, "invalid_budget", "5 to"),
    "large budget": ({"text": "hi", "budget_ms": 10_001}, "invalid_budget", "10001"),
    "huge budget": ({"text": "hi", "budget_ms": 10**30}, "invalid_budget", "it may be"),
    "budget beyond floats": ({"text": "hi", "budget_ms": 10**400}, "invalid_budget", "it may be"),
    "negative budget beyond floats": ({"text": "hi", "budget_ms": -(10**400)}, "invalid_budget", "it may be"),
}


@pytest.mark.parametrize(("ask", "code", "says"), UNFIT.values(), ids=UNFIT)
async def test_unfit_questions(server: Server, ask: dict[str, Any], code: str, says: str) -> None:
    """A question outside of the limits is refused by its id with what would be right, and the connection goes on."""
    async with dial(server) as client:
        await client.send(type="ask", id="1", **ask)
        error = await client.receive()
        assert {**error, "message": ""} == {**REFUSED, "id": "1", "code": code, "message": ""}
        assert says in error["message"]
        await client.flush()


async def test_questions_at_the_limits(server: Server) -> None:
    """The longest text and id and the largest budget are accepted; whatever a text holds, it is answered."""
    async with dial(server) as client:
        texts = ["x" * 1000, "🦭" * 1000, "\u202e\0\ufffd", "?", "مرحبا", "[SEP] [CLS] ##ing"]
        for number, text in enumerate(texts):
            request_id = f"{number}" * MAX_ID
            await client.ask(request_id, text, budget_ms=10_000)
            reply = await client.receive()
            assert (reply["type"], reply["id"]) == ("answer", request_id)


async def test_small_budget(start_held: ServerFactory, device: Device) -> None:
    """A message that cannot be encoded within its budget is refused or ends by its deadline, and is never encoded."""
    async with start_held() as server, dial(server) as client:
        lanes = server._engine.encoder.sessions
        await client.occupy(device, lanes)
        await client.ask("late", UNSEEN, budget_ms=5)
        error = await client.receive()
        assert (error["id"], error["retryable"]) == ("late", True)
        assert error["code"] in {"overloaded", "deadline_exceeded"}  # by what the device is expected to take
        device.let_go()
        replies = [await client.receive() for _ in range(lanes)]
        assert {reply["type"] for reply in replies} == {"answer"}
        await client.flush()
        assert len(device.seen) == lanes


async def test_overloaded(start_held: ServerFactory, device: Device) -> None:
    """When the queue is full a question is refused at once, with a time to come back; those before it are answered."""
    async with start_held(max_queue=1) as server, dial(server) as client:
        lanes = server._engine.encoder.sessions
        await client.occupy(device, lanes)
        await client.ask("waiting", UNSEEN)
        await client.ask("too many", f"{UNSEEN} now")
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("too many", "overloaded", True)
        assert error["retry_after_ms"] >= 1
        device.let_go()
        replies = [await client.receive() for _ in range(lanes + 1)]
        assert {reply["type"] for reply in replies} == {"answer"}


async def test_ping(server: Server) -> None:
    """A pong carries its ping's id, or none."""
    async with dial(server) as client:
        await client.send(type="ping", id="p")
        assert await client.receive() == {"type": "pong", "id": "p"}
        await client.send(type="ping")
        assert await client.receive() == {"type": "pong", "id": None}
