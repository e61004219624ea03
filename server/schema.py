"""The protocol for programs: JSON Schema and AsyncAPI, generated from the types of `server.messages`.

Descriptions are the docstrings of these types, so that there is one place for them. Other fields than those described
are allowed everywhere, because receivers ignore what they do not know.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from server.messages import REPLIES, SUBPROTOCOL, ClientMessage, Error, ServerMessage, tag_of

_ATTRIBUTES = re.compile(r"^Attributes:\n", re.MULTILINE)
# A line with the names of attributes, and those that go on where it is indented further.
_ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n     +.*)*)", re.MULTILINE)

Schema = dict[str, Any]


def json_schema() -> Schema:
    """JSON Schema, draft 2020-12: a message of either side, and each type of message by its name."""
    client, server = get_args(ClientMessage), get_args(ServerMessage)
    place = "#/$defs/"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SUBPROTOCOL,
        "description": f"One message of {SUBPROTOCOL}, a text frame of a websocket.",
        "oneOf": [{"$ref": f"{place}ClientMessage"}, {"$ref": f"{place}ServerMessage"}],
        "$defs": {
            "ClientMessage": {
                "description": "What a client sends.",
                "oneOf": [{"$ref": place + message.__name__} for message in client],
            },
            "ServerMessage": {
                "description": "What the server sends.",
                "oneOf": [{"$ref": place + message.__name__} for message in server],
            },
            **_schemas([*client, *server], place),
        },
    }


def asyncapi() -> Schema:
    """An AsyncAPI 3 document of the server: it receives what clients send, and sends the rest."""
    client, server = get_args(ClientMessage), get_args(ServerMessage)
    replies = {Error}.union(*REPLIES.values())
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "faqwire",
            "version": "1",
            "description": f"Answers visitors' questions from a FAQ, over a websocket: the subprotocol {SUBPROTOCOL}.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:8765",
                "protocol": "ws",
                "description": "Where `faqwire serve` listens unless told otherwise.",
            }
        },
        "channels": {
            "chat": {
                "address": "/",
                "description": "One connection; text frames, one message in each.",
                "messages": {
                    tag_of(message): {"$ref": f"#/components/messages/{tag_of(message)}"}
                    for message in (*client, *server)
                },
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": {
            **{tag_of(message): _received(message) for message in client},
            **{tag_of(message): _operation("send", message) for message in server if message not in replies},
        },
        "components": {
            "messages": {tag_of(message): _message(message) for message in (*client, *server)},
            "schemas": _schemas([*client, *server], "#/components/schemas/"),
        },
    }


def as_text(document: Schema) -> str:
    """A document as it is kept in a file."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _received(message: type[msgspec.Struct]) -> Schema:
    answers = [_in_channel(answer) for answer in REPLIES[message]]
    reply = {"channel": {"$ref": "#/channels/chat"}, "messages": [*answers, _in_channel(Error)]}
    return {**_operation("receive", message), "reply": reply}


def _operation(action: str, message: type[msgspec.Struct]) -> Schema:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/chat"},
        "summary": _described(message)[0].partition("\n")[0],
        "messages": [_in_channel(message)],
    }


def _in_channel(message: type[msgspec.Struct]) -> Schema:
    return {"$ref": f"#/channels/chat/messages/{tag_of(message)}"}


def _message(message: type[msgspec.Struct]) -> Schema:
    return {
        "name": tag_of(message),
        "title": message.__name__,
        "summary": _described(message)[0].partition("\n")[0],
        "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
    }


def _schemas(types: Iterable[type[msgspec.Struct]], place: str) -> Schema:
    """The schemas of types and of all that is inside of them, by name, with what their docstrings say."""
    _, schemas = msgspec.json.schema_components(types, ref_template=place + "{name}")
    for struct in _structs(types):
        schema = schemas[struct.__name__]
        schema["description"], fields = _described(struct)
        for name, meaning in fields.items():
            # Beside a $ref older tools ignore everything else.
            one = schema["properties"][name]
            schema["properties"][name] = {"description": meaning, **({"allOf": [one]} if "$ref" in one else one)}
    return schemas


def _structs(types: Iterable[Any]) -> set[type[msgspec.Struct]]:
    """All structs among types and inside of them."""
    found: set[type[msgspec.Struct]] = set()
    for one in types:
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            found |= {one, *_structs(field.type for field in msgspec.structs.fields(one))}
        else:
            found |= _structs(get_args(one))
    return found


def _described(struct: type[msgspec.Struct]) -> tuple[str, dict[str, str]]:
    """What a docstring says of a struct, and of each of its attributes, unwrapped."""
    summary, *attributes = _ATTRIBUTES.split(inspect.getdoc(struct) or "")
    described = _ATTRIBUTE.findall("".join(attributes))
    return _unwrapped(summary), {name: _unwrapped(text) for names, text in described for name in names.split(", ")}


def _unwrapped(text: str) -> str:
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
