"""Guards the server against what no sane client sends: it refuses, says why without a word too many, and goes on."""

import asyncio
import json
from collections import Counter
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from server.messages import Undecodable, decode
from tests.server.attacker import Attacker, Judge, Tally
from tests.server.conftest import ServerFactory
from tests.server.fakes import until
from tests.server.hostile import FIN, PING, PONG, REQUESTS, Attack, Hostile
from tests.server.raw import Raw, dial

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schema.json").read_text(encoding="utf-8"))
MAX_FRAME = 16_384
Events = list[MutableMapping[str, Any]]


def hostile(seed: int) -> Hostile:
    """A source of attacks on a server with default limits."""
    return Hostile(SCHEMA, seed, MAX_FRAME)


async def ask_until(client: Raw, done: asyncio.Event) -> Counter[str]:
    """Ask one question after the other; what the replies were."""
    replies: Counter[str] = Counter()
    while not done.is_set():
        replies[(await client.reply_to("1", "Where is my order?"))["type"]] += 1
        replies[(await client.reply_to("2", f"has number {replies.total()} been sent off yet"))["type"]] += 1
    return replies


async def test_hostile_frames(start_server: ServerFactory, logs: Events) -> None:
    """Every wrong message gets one reply by the schema, every wrong frame its close code, and others are answered."""
    tally, done = Tally(), asyncio.Event()
    async with start_server(budget_ms=10_000) as server, dial(server) as other:
        asking = asyncio.create_task(ask_until(other, done))
        attackers = [Attacker(server.url, Judge(SCHEMA, tally), tally) for _ in range(3)]
        await asyncio.gather(
            *(one.run(hostile(seed).attacks(700, wrong_frames=0.1)) for seed, one in enumerate(attackers)),
            attackers[0].flood(FIN | PING, 2000),
            attackers[0].flood(FIN | PONG, 2000),
        )
        done.set()
        replies = await asking
        await until(lambda: len(server.reception.connections) == 1)
    assert not tally.problems
    assert tally.sent.total() == 3 * 700 + 4000
    assert {code for _, code in tally.ends} >= {1002, 1007, 1009}
    assert replies.keys() == {"answer"}
    assert not [event for event in logs if event["log_level"] in {"warning", "error", "critical"}]


async def test_hostile_frames_at_a_pace(
    start_server: ServerFactory, logs: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits of pace, as servers have them, whoever goes on is closed as too fast, and others are answered."""
    monkeypatch.setattr("server.websocket.GOODBYE_SECONDS", 0.05)
    tally = Tally()
    # So slow that an attacker is too fast on any machine.
    async with start_server(messages_per_second=1, message_burst=20) as server, dial(server) as other:
        asking = asyncio.create_task(other.reply_to("1", "has my order been sent off yet"))
        attacker = Attacker(server.url, Judge(SCHEMA, tally), tally, limited=True)
        await attacker.run(hostile(4).attacks(1500, wrong_frames=0.001))
        await attacker.flood(FIN | PING, 5000)
        assert (await asking)["type"] == "answer"
        await other.flush()
    assert not tally.problems
    assert tally.ends["too fast", 4401] >= 2
    assert tally.replies["rate_limited"] > 0
    assert not [event for event in logs if event["log_level"] in {"warning", "error", "critical"}]


async def test_hostile_requests(start_server: ServerFactory, logs: Events) -> None:
    """What is no handshake gets a response that says so, or none; nothing of it is the server's fault."""
    tally = Tally()
    async with start_server() as server:
        attacker = Attacker(server.url, Judge(SCHEMA, tally), tally)
        for request in hostile(1).requests(300):
            await attacker.ask_wrongly(request)
        async with dial(server) as other:
            await other.flush()
    assert not tally.problems
    assert {kind.partition(",")[0] for kind, _ in tally.statuses} == {kind for kind, *_ in REQUESTS}
    assert not [event for event in logs if event["log_level"] in {"warning", "error", "critical"}]


def test_the_same_seed_gives_the_same_attacks() -> None:
    """What was found once is found again."""

    def some(seed: int) -> list[Attack]:
        return [*hostile(seed).attacks(200, wrong_frames=0.3), *hostile(seed).requests(50)]

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_messages_are_of_the_schema() -> None:
    """Before they are mutated, messages are such as a client may send, and all of them come up."""
    validator = Draft202012Validator({**SCHEMA, "oneOf": [{"$ref": "#/$defs/ClientMessage"}]})
    source = hostile(3)
    messages = [source.message() for _ in range(300)]
    for message in messages:
        validator.validate(message)
    assert {message["type"] for message in messages} == {"hello", "ask", "cancel", "suggest", "feedback", "ping"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.sampled_from(["id", "text"]), inner),
)


@given(
    st.text()
    | st.binary()
    | JSON.map(json.dumps)
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["ask", "hello", "cancel", "suggest", "feedback", "ping"]) | JSON},
        optional={"id": JSON, "text": JSON, "ref": JSON, "helpful": JSON, "budget_ms": JSON, "token": JSON},
    ).map(json.dumps)
)
def test_decode_raises_nothing_else(wire: str | bytes) -> None:
    """Whatever comes is a message by the schema, or an error whose code is of a message that cannot be read."""
    try:
        decode(wire)
    except Undecodable as exc:
        assert exc.error.code in {"invalid_message", "unknown_type"}  # noqa: PT017 most of them raise, some do not
        assert exc.request_id is None or 1 <= len(exc.request_id) <= 64  # noqa: PT017 likewise


@pytest.mark.parametrize("depth", [100, 100_000, 10_000_000])
@pytest.mark.parametrize("place", ['{{"type":"ping","id":{0}}}', '{{"x":{0},"type":"ping"}}', "{0}"])
def test_nesting(depth: int, place: str) -> None:
    """However deeply a message is nested, it is refused as one, and the stack holds."""
    with pytest.raises(Undecodable) as caught:
        decode(place.format("[" * depth + "]" * (depth - 1)))
    assert caught.value.error.code == "invalid_message"
