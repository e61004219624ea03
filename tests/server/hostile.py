"""What no sane client sends: generated from the protocol's schema and mutated, the same for the same seed; no I/O.

There are messages that are wrong, each of which gets one reply and leaves the connection as it was; frames that are no
websocket frames, each of which ends its connection with a close code; and requests that are no handshakes.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
FIN = 0x80
# That the connection was cut without a code, as clients see it.
CUT = 1006
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, 2**31, 2**63, 2**64, -(2**200), "", " ", "\0", "x" * 65, "1"),
    *([], {}, [[]], [None], {"type": "ask"}, {"$ref": "#"}, ["x"] * 50),
)
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz ",
    "where is my order? can i return it",
    "äßçñøžЖ漢字かな한글עברית",
    "\0\x01\x1b\x7f\u0085\u200b\u202e\ufeff\ufffd\uffff",
    "😀👩‍👩‍👧‍👦🏴\U0010ffff",
    "\"\\/'`${}<script>%00%n",
)


@dataclass(frozen=True)
class Attack:
    """What is sent, and what may come of it.

    Attributes:
        kind: a word for what is wrong with it.
        wire: its octets.
        ends: the close codes that it may end its connection with; without any, one reply comes and it goes on.
        last: whether nothing more is sent behind it.
    """

    kind: str
    wire: bytes
    ends: frozenset[int] = frozenset()
    last: bool = False


def frame(first: int, payload: bytes = b"", *, masked: bool = True, length: int | None = None) -> bytes:
    """A client's frame, right or wrong.

    Args:
        first: its first octet: FIN, reserved bits, opcode.
        payload: what it carries.
        masked: whether it is masked, as those of clients have to be.
        length: the length that it claims; None is the true one.
    """
    size = len(payload) if length is None else length
    flag = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, flag | size))
    elif size < 1 << 16:
        head = bytes((first, flag | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, flag | 127)) + size.to_bytes(8)
    return head + (bytes(4) if masked else b"") + payload  # a mask of zeros changes nothing


class Hostile:
    """A source of attacks.

    Args:
        schema: `docs/schema.json`.
        seed: the same one gives the same attacks.
        max_frame: most bytes of a message that the server takes.
    """

    def __init__(self, schema: dict[str, Any], seed: int, max_frame: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 no secret
        self._max_frame = max_frame
        defined = schema["$defs"]
        names = [one["$ref"].rpartition("/")[2] for one in defined["ClientMessage"]["oneOf"]]
        self._types = [defined[name] for name in names]
        self._wrong_messages: tuple[Callable[[], Attack], ...] = (
            *(self._valid, self._truncated, self._wrong_type, self._missing, self._more, self._unknown_type),
            *(self._nested, self._number, self._surrogate, self._no_json, self._altered, self._binary, self._large),
            self._in_parts,
        )
        self._wrong_frames: tuple[Callable[[], Attack], ...] = (
            *(self._oversized, self._invalid_utf8, self._reserved_bits, self._reserved_opcode, self._unmasked),
            *(self._control_in_parts, self._long_control, self._stray_part, self._interrupted, self._wrong_close),
            *(self._wrong_length, self._cut, self._octets),
        )

    def attacks(self, count: int, wrong_frames: float) -> Iterator[Attack]:
        """So many attacks.

        Args:
            count: how many.
            wrong_frames: the share of those that end their connection.
        """
        for _ in range(count):
            of = self._wrong_frames if self._random.random() < wrong_frames else self._wrong_messages
            yield self._random.choice(of)()

    def message(self) -> dict[str, Any]:
        """A message that a client may send."""
        schema = self._random.choice(self._types)
        needed = schema.get("required", ())
        return {
            name: self._value(one)
            for name, one in schema["properties"].items()
            if name in needed or self._random.random() < 0.5
        }

    def requests(self, count: int) -> Iterator[Attack]:
        """So many requests of which none is a websocket handshake as it should be."""
        for _ in range(count):
            kind, lines, rest = self._random.choice(REQUESTS)
            wire = "\r\n".join([*lines, "", ""]).encode("latin-1") + rest
            last = kind == "TLS"  # the server waits for the end of the line
            if kind == "octets":
                last = True
                wire = self._random.randbytes(self._random.randint(1, 2000))
            if self._random.random() < 0.2:
                kind, last, wire = f"{kind}, cut", True, wire[: self._random.randrange(len(wire))]
            yield Attack(kind, wire, last=last)

    def _value(self, schema: dict[str, Any]) -> Any:
        if "anyOf" in schema:
            return self._value(self._random.choice(schema["anyOf"]))
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        match schema["type"]:
            case "string":
                most = min(schema.get("maxLength", 300), 300)
                return self._text(self._random.randint(schema.get("minLength", 0), self._random.choice((8, most))))
            case "integer":
                return self._random.choice((0, 1, 5, 50, 10_000, self._random.randint(-(10**6), 10**6)))
            case "boolean":
                return self._random.random() < 0.5
            case _:
                return None

    def _text(self, length: int) -> str:
        return "".join(self._random.choices(self._random.choice(ALPHABETS), k=length))

    def _as_text(self, message: dict[str, Any]) -> str:
        return json.dumps(message, ensure_ascii=self._random.random() < 0.5)

    def _told(self, kind: str, text: str) -> Attack:
        """A text frame, as long as the server takes it."""
        payload = text.encode()[: self._max_frame].decode(errors="ignore").encode()
        return Attack(kind, frame(FIN | TEXT, payload))

    def _valid(self) -> Attack:
        return self._told("valid", self._as_text(self.message()))

    def _truncated(self) -> Attack:
        text = self._as_text(self.message())
        return self._told("truncated", text[: self._random.randrange(len(text))])

    def _wrong_type(self) -> Attack:
        message = self.message()
        message[self._random.choice(list(message))] = self._random.choice(JUNK)
        return self._told("wrong type", self._as_text(message))

    def _missing(self) -> Attack:
        message = self.message()
        del message[self._random.choice(list(message))]
        return self._told("missing field", self._as_text(message))

    def _more(self) -> Attack:
        text = self._as_text(self.message())
        name, value = self._random.choice(("id", "type", "text", "__proto__", "\0")), self._random.choice(JUNK)
        return self._told("more or doubled fields", f"{text[:-1]}, {json.dumps(name)}: {json.dumps(value)}}}")

    def _unknown_type(self) -> Attack:
        kind = self._random.choice(("Ask", "ask ", "answer", "welcome", "error", "going_away", self._text(50)))
        return self._told("unknown type", self._as_text({**self.message(), "type": kind}))

    def _nested(self) -> Attack:
        depth = self._random.choice((20, 300, 1200, 5000))
        opening, closing = self._random.choice((("[", "]"), ('{"id":', "}")))
        deep = opening * depth + "1" + self._random.choice((closing * depth, ""))
        place = self._random.choice(('{{"type":"ask","id":"1","text":{0}}}', '{{"x":{0},"type":"ping"}}', "{0}"))
        return self._told("nested", place.format(deep))

    def _number(self) -> Attack:
        number = self._random.choice(("1e999", "-1e999", "NaN", "Infinity", "-0", "1e-400", "9" * 5000, "0x10", "01"))
        return self._told("numbers", f'{{"type":"ask","id":"n","text":"hi","budget_ms":{number}}}')

    def _surrogate(self) -> Attack:
        escape = self._random.choice(("\\ud800", "\\udfff", "\\udc00\\ud800", "\\ud83d", "\\u0000", "\\u12", "\\x41"))
        field = self._random.choice(("id", "text", "type"))
        message = {"type": "ask", "id": "s", "text": "hi", field: "~"}
        return self._told("escapes", json.dumps(message).replace("~", escape))

    def _no_json(self) -> Attack:
        return self._told("no JSON", self._text(self._random.randint(0, 400)))

    def _altered(self) -> Attack:
        text = list(self._as_text(self.message()))
        for _ in range(self._random.randint(1, 5)):
            text[self._random.randrange(len(text))] = self._text(1)
        return self._told("altered", "".join(text))

    def _binary(self) -> Attack:
        payload = self._random.choice((self._random.randbytes(100), self._as_text(self.message()).encode(), b""))
        return Attack("binary", frame(FIN | BINARY, payload))

    def _large(self) -> Attack:
        message = {**self.message(), self._random.choice(("text", "comment", "id", "x")): "y" * self._max_frame}
        return self._told("as large as may be", self._as_text(message))

    def _in_parts(self) -> Attack:
        payload = self._as_text(self.message()).encode()
        cuts = sorted(self._random.choices(range(len(payload) + 1), k=self._random.randint(1, 6)))
        parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        wire = frame(TEXT, parts[0]) + b"".join(frame(FIN | PONG) + frame(CONT, part) for part in parts[1:])
        return Attack("in parts", wire + frame(FIN | CONT))

    def _oversized(self) -> Attack:
        size = self._max_frame + self._random.choice((1, 1000, 100_000))
        whole = frame(FIN | TEXT, b"x" * size)
        parts = frame(TEXT, b"x" * self._max_frame) + frame(FIN | CONT, b"x" * self._random.randint(1, 1000))
        return Attack("oversized", self._random.choice((whole, parts)), frozenset({1009}))

    def _invalid_utf8(self) -> Attack:
        wrong = self._random.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"))
        text = self._as_text(self.message()).encode()
        return Attack("invalid UTF-8", frame(FIN | TEXT, text[:8] + wrong + b"!" + text[8:]), frozenset({1007}))

    def _reserved_bits(self) -> Attack:
        bits = self._random.choice((0x10, 0x20, 0x40, 0x70))
        return Attack("reserved bits", frame(FIN | bits | TEXT, b"{}"), frozenset({1002}))

    def _reserved_opcode(self) -> Attack:
        opcode = self._random.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15))
        return Attack("reserved opcode", frame(FIN | opcode, b"{}"), frozenset({1002}))

    def _unmasked(self) -> Attack:
        wire = frame(FIN | TEXT, self._as_text(self.message()).encode(), masked=False)
        return Attack("not masked", wire, frozenset({1002}))

    def _control_in_parts(self) -> Attack:
        return Attack("control frame in parts", frame(self._random.choice((PING, PONG, CLOSE))), frozenset({1002}))

    def _long_control(self) -> Attack:
        wire = frame(FIN | self._random.choice((PING, PONG, CLOSE)), b"x" * self._random.randint(126, 1000))
        return Attack("long control frame", wire, frozenset({1002}))

    def _stray_part(self) -> Attack:
        return Attack("part of nothing", frame(self._random.choice((CONT, FIN | CONT)), b"x"), frozenset({1002}))

    def _interrupted(self) -> Attack:
        wire = frame(TEXT, b"{") + frame(self._random.choice((TEXT, BINARY, FIN | TEXT)), b"}")
        return Attack("message within a message", wire, frozenset({1002}))

    def _wrong_close(self) -> Attack:
        code = self._random.choice((0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)).to_bytes(2)
        payload = self._random.choice((code, b"\x03", code + b"reason", (1000).to_bytes(2) + b"\xff\xfe"))
        return Attack("wrong close", frame(FIN | CLOSE, payload), frozenset({1002, 1007}))

    def _wrong_length(self) -> Attack:
        length = self._random.choice((1 << 20, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1))
        return Attack("wrong length", frame(FIN | TEXT, b"x" * 10, length=length), frozenset({1002, 1009}))

    def _cut(self) -> Attack:
        wire = frame(FIN | TEXT, self._as_text(self.message()).encode())
        return Attack("cut off", wire[: self._random.randrange(1, len(wire))], frozenset({CUT}), last=True)

    def _octets(self) -> Attack:
        wire = self._random.randbytes(self._random.randint(2, 500))
        return Attack("octets", wire, frozenset({1002, 1005, CUT, 1007, 1009}), last=True)


_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
_UPGRADE = ("Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
_GET = "GET / HTTP/1.1"
# What kind, which lines, and what comes behind them.
REQUESTS: tuple[tuple[str, tuple[str, ...], bytes], ...] = (
    ("no key", (_GET, *_UPGRADE), b""),
    ("short key", (_GET, *_UPGRADE, "Sec-WebSocket-Key: AAAA"), b""),
    ("two keys", (_GET, *_UPGRADE, _KEY, _KEY), b""),
    ("other version", (_GET, *_UPGRADE[:3], "Sec-WebSocket-Version: 8", _KEY), b""),
    ("other protocol", (_GET, *_UPGRADE, _KEY, "Sec-WebSocket-Protocol: graphql-ws"), b""),
    ("wrong protocol header", (_GET, *_UPGRADE, _KEY, "Sec-WebSocket-Protocol: ,;=()"), b""),
    ("other origin", (_GET, *_UPGRADE, _KEY, "Origin: https://evil.example"), b""),
    ("two origins", (_GET, *_UPGRADE, _KEY, "Origin: http://127.0.0.1", "Origin: http://127.0.0.1"), b""),
    ("other path", ("GET /../../etc/passwd HTTP/1.1", *_UPGRADE, _KEY), b""),
    ("other method", ("POST / HTTP/1.1", *_UPGRADE, _KEY, "Content-Length: 4"), b"ping"),
    ("body", (_GET, "Host: 127.0.0.1", "Content-Length: 100000"), b"x" * 1000),
    ("old HTTP", ("GET / HTTP/1.0", *_UPGRADE, _KEY), b""),
    ("HTTP/2", ("PRI * HTTP/2.0", "", "SM"), b""),
    ("TLS", (), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
    ("long line", (f"GET /{'x' * 100_000} HTTP/1.1", *_UPGRADE, _KEY), b""),
    ("long header", (_GET, *_UPGRADE, _KEY, f"X: {'x' * 100_000}"), b""),
    ("many headers", (_GET, *_UPGRADE, _KEY, *("X: y" for _ in range(2000))), b""),
    ("wrong header", (_GET, *_UPGRADE, _KEY, "no colon", "\xff\xfe: \0"), b""),
    ("no request", ("\0\0\0", "\xff" * 100), b""),
    ("octets", (), b""),
)
