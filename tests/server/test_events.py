"""Guards what is logged: docs/logs.md has every event, and a client is followed by its connection's id."""

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from server.app import Server
from server.engine import Engine
from tests.server.conftest import Events, ServerFactory
from tests.server.fakes import until
from tests.server.raw import UNSEEN, UPGRADE, dial, get
from tests.test_docs import ROOT, blocks, read, sections, table

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
# What `Engine.facts` says.
FACTS = {"model", "variant", "provider", "sessions", "cross_encoder", "index", "entries"}


class Call(NamedTuple):
    """A line of code that logs."""

    place: str
    event: str
    level: str
    fields: frozenset[str]


def calls() -> Iterator[Call]:
    """Every call of a logger in what serves."""
    for file in sorted(path for package in ("server", "intents", "export") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"), attr=level)) if level in LEVELS:
                    yield call_of(file, node, level)


def call_of(file: Path, node: ast.Call, level: str) -> Call:
    """What a call logs, as far as the code says it."""
    place = f"{file.relative_to(ROOT)}:{node.lineno}"
    assert len(node.args) == 1, f"{place}: an event has a name, and fields by their names"
    [name] = node.args
    assert isinstance(name, ast.Constant), f"{place}: an event's name is the same every time"
    fields = {
        "exception" if keyword.arg == "exc_info" else str(keyword.arg) for keyword in node.keywords if keyword.arg
    }
    if len(fields) < len(node.keywords):  # the one group of fields that several events share
        fields |= FACTS
    if level == "exception":
        level, fields = "error", fields | {"exception"}
    return Call(place, str(name.value), level, frozenset(fields))


def test_loggers_are_found_by_their_name() -> None:
    """Every module that makes a logger calls it `_log`, so that the scan below misses none."""
    for file in (path for package in ("server", "intents", "export") for path in (ROOT / package).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert text.count("get_logger(") == text.count("\n_log = structlog.get_logger(__name__)\n"), file
        assert "logging.getLogger" not in text or file.name == "tracing.py", f"{file}: structlog is what logs"


def test_events_are_all_documented() -> None:
    """logs.md has every event with its level and its fields, and nothing that is none."""
    documented = {
        event: (row[1], frozenset(row[2].replace("`", "").split(", ")) - {""})
        for event, row in table(sections(read("docs/logs.md"))["All events"], "event").items()
    }
    logged = defaultdict(set)
    for call in calls():
        logged[call.event].add((call.level, call.fields))
        assert call.event in documented, f"docs/logs.md lacks {call.event!r} of {call.place}"
        assert documented[call.event] == (call.level, call.fields), f"docs/logs.md is wrong about {call.place}"
    assert documented.keys() == logged.keys()
    assert len(documented) > 30, "the scan finds what it is meant to"


def test_fields_of_a_slow_message_are_explained() -> None:
    """logs.md says what each field of a slow message means."""
    text = sections(read("docs/logs.md"))
    explained = table(text["Slow messages"], "field of a slow message").keys() | table(text["Fields"], "common field")
    [slow] = [call for call in calls() if call.event == "slow message"]
    assert slow.fields <= explained
    [example] = blocks(read("docs/logs.md"), "json")
    assert json.loads(example).keys() == slow.fields | {"event", "level", "timestamp"}


def test_facts_of_an_engine(engine: Engine) -> None:
    """The fields that several events share are what the scan above takes them for."""
    assert engine.facts.keys() == FACTS


def named(logs: Events, event: str) -> Events:
    """The events of a name."""
    return [one for one in logs if one["event"] == event]


async def closed(server: Server) -> None:
    """Wait until the server has forgotten all connections."""
    await until(lambda: not server.reception.connections)


async def test_a_connection_is_followed_by_its_id(start_server: ServerFactory, logs: Events) -> None:
    """Its beginning, what it says of itself, its replies and its end carry one id; replies carry the client's too."""
    async with start_server() as server:
        async with dial(server) as client:
            await client.send(type="hello", client="test/1", locale="de")
            await client.ask("first", UNSEEN)
            decision = (await client.receive())["decision"]
            await client.ask("second", "")
            await client.receive()
        async with dial(server):
            pass
        await closed(server)
    first, other = (event["connection"] for event in named(logs, "connection opened"))
    assert first != other
    mine = [event for event in logs if event.get("connection") == first]
    assert [event["event"] for event in mine] == [
        *("connection opened", "hello", "replied", "replied", "connection closed")
    ]
    assert {event["log_level"] for event in mine} == {"debug"}
    assert mine[0]["address"] == "127.0.0.1"
    assert [(e["id"], e["outcome"], e["decision"], e["code"]) for e in named(mine, "replied")] == [
        ("first", "answer", decision, None),
        ("second", "error", None, "invalid_text"),
    ]
    assert mine[-1]["code"] == 1000


@pytest.mark.parametrize(
    ("changes", "header", "reason"),
    [
        ({}, "Origin: https://elsewhere.example", "origin"),
        ({"connection_burst": 1, "connections_per_second": 0.01}, "", "connection_rate"),
    ],
)
async def test_a_refused_handshake(
    start_server: ServerFactory, logs: Events, changes: dict[str, float], header: str, reason: str
) -> None:
    """Who is turned away, and why, can be read where somebody looks for it."""
    async with start_server(**changes) as server:
        await get(server, "/", *UPGRADE)
        await get(server, "/", *UPGRADE, *filter(None, [header]))
    assert [(e["address"], e["reason"], e["log_level"]) for e in named(logs, "handshake refused")] == [
        ("127.0.0.1", reason, "debug")
    ]
