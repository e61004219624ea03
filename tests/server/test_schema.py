"""Guards `server.schema`: what is generated of the types is complete, valid, kept in docs/, and true of messages."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from server.messages import REPLIES, ClientMessage, Error, ServerMessage, encode, tag_of
from server.schema import as_text, asyncapi, json_schema
from tests.server.test_messages import REPLIES as SENT
from tests.server.test_messages import REQUESTS

ROOT = Path(__file__).parents[2]
# Where `make asyncapi` installs AsyncAPI's own parser.
PARSER = ROOT / ".cache" / "asyncapi"
TYPES = (*get_args(ClientMessage), *get_args(ServerMessage))


def validator(name: str) -> Draft202012Validator:
    """What checks messages of a side, or of one type."""
    schema = json_schema()
    return Draft202012Validator({**schema, "oneOf": [{"$ref": f"#/$defs/{name}"}]})


@pytest.mark.parametrize(("name", "document"), [("schema.json", json_schema()), ("asyncapi.json", asyncapi())])
def test_the_documentation_has_the_current_schemas(name: str, document: dict[str, Any]) -> None:
    """docs/ holds what `faqwire schema` writes."""
    kept = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert kept == as_text(document), f"docs/{name} is out of date; run `faqwire schema`"


def test_the_json_schema_is_one() -> None:
    """It keeps the rules of its draft."""
    Draft202012Validator.check_schema(json_schema())


def test_everything_is_described() -> None:
    """Every type and every field of it says what it means, in one paragraph without leftovers of its docstring."""
    defined = json_schema()["$defs"]
    assert {message.__name__ for message in TYPES} < defined.keys()
    for name, schema in defined.items():
        assert schema["description"], name
        assert "Attributes:" not in schema["description"], name
        for field, one in schema.get("properties", {}).items():
            assert field == "type" or re.fullmatch(r"\S.*\S", one["description"]), f"{name}.{field}"


@given(REQUESTS)
def test_what_clients_send_is_valid(message: ClientMessage) -> None:
    """Every message that a client may send is one of a client's by the schema."""
    validator("ClientMessage").validate(json.loads(encode(message)))


@given(SENT)
def test_what_the_server_sends_is_valid(message: ServerMessage) -> None:
    """Every message that the server may send is one of the server's by the schema."""
    validator("ServerMessage").validate(json.loads(encode(message)))


@pytest.mark.parametrize(
    "block", re.findall(r"^```json\n(.*?)^```$", (ROOT / "docs/protocol.md").read_text(), re.MULTILINE | re.DOTALL)
)
def test_examples_are_valid(block: str) -> None:
    """The examples of protocol.md are messages by the schema, each of its own type."""
    example = json.loads(block)
    [message] = [message for message in TYPES if tag_of(message) == example["type"]]
    validator(message.__name__).validate(example)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "ask", "text": "hi"},
        {"type": "ask", "id": "", "text": "hi"},
        {"type": "ask", "id": "1" * 65, "text": "hi"},
        {"type": "ask", "id": "1", "text": "hi", "budget_ms": "9"},
        {"type": "feedback", "id": "1", "ref": "r", "helpful": None},
        {"type": "pong", "id": None},
    ],
)
def test_what_is_refused_is_not_valid(wrong: dict[str, Any]) -> None:
    """What the server refuses is none of a client's messages by the schema either."""
    assert not validator("ClientMessage").is_valid(wrong)


def test_later_fields_are_valid() -> None:
    """A message with fields that only a later version knows is still one."""
    validator("ClientMessage").validate({"type": "ping", "mood": [1]})


def test_every_message_has_its_operation() -> None:
    """What a client sends is received, with its replies; what the server sends by itself is sent."""
    operations = asyncapi()["operations"]
    received = {name for name, one in operations.items() if one["action"] == "receive"}
    assert received == {tag_of(message) for message in get_args(ClientMessage)}
    assert operations.keys() - received == {"welcome", "going_away"}
    assert [message["$ref"].rpartition("/")[2] for message in operations["ask"]["reply"]["messages"]] == [
        *("answer", "cancelled", "error"),
    ]


def test_replies_are_known_for_every_message() -> None:
    """Whoever adds a message says what answers it."""
    assert REPLIES.keys() == set(get_args(ClientMessage))
    assert not any(Error in replies for replies in REPLIES.values())


def test_both_documents_describe_the_same() -> None:
    """AsyncAPI's schemas are those of JSON Schema, under their own place."""
    moved = msgspec.json.decode(as_text(asyncapi()).replace("#/components/schemas/", "#/$defs/"))
    defined = json_schema()["$defs"]
    assert moved["components"]["schemas"] == {name: defined[name] for name in moved["components"]["schemas"]}
    assert defined.keys() - moved["components"]["schemas"].keys() == {"ClientMessage", "ServerMessage"}


def test_the_asyncapi_document_is_one() -> None:
    """AsyncAPI's own parser takes it without an error."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (PARSER / "node_modules" / "@asyncapi" / "parser").is_dir():
        pytest.skip("AsyncAPI's parser is not installed; `make asyncapi` does it")
    script = Path(__file__).with_name("asyncapi.mjs")
    done = subprocess.run(
        [node, str(script), str(PARSER), str(ROOT / "docs" / "asyncapi.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(TYPES)} messages" in done.stdout
