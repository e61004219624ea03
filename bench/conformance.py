"""An independent conformance suite, Autobahn's fuzzing client, against the websocket layer and against the server.

    python -m bench.conformance --wstest PATH/TO/wstest [--cases "1.*" "2.*"] [--reports FOLDER]

The suite is written for Python 2.7 (`pip install autobahntestsuite` there brings `wstest`). It takes the other end for
an echo server, which this one is not. So it runs three times:

- `layer`: the server's own listening, handshake, gate and websocket, with an echo in place of a client's life, and with
  messages of up to 16 MiB at any pace, as the suite sends them: every case applies
- `limits`: the same with the settings' defaults: what is too large ends in 1009, what is too fast in 4401
- `server`: a `faqwire serve` process with default limits, but for the number of new connections. A relay takes the
  `welcome` out of what the suite sees, and changes nothing else. A case that expects its message back cannot pass; one
  that expects pongs, silence or a close is judged by the suite

Prints a table of the suite's verdicts by group of cases, and every case whose verdict is none of OK, NON-STRICT and
INFORMATIONAL, with the close code that came instead. Cases of compression, which is not offered, are UNIMPLEMENTED.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from websockets.exceptions import ConnectionClosed

from bench.load import UNLIMITED
from bench.machine import heading
from bench.served import served
from server.address import Proxies
from server.handshakes import Handshakes
from server.http import Gate
from server.listening import Listener, address_of, bind
from server.messages import SUBPROTOCOL
from server.settings import Settings, read_settings
from server.telemetry import Metrics
from server.websocket import Websocket

# Groups of cases as the suite numbers them.
GROUPS = {
    "1": "framing: sizes up to 64 KiB",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "reserved opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "messages up to 16 MiB",
    "10": "automatic fragmentation",
    "12": "compression",
    "13": "compression, its parameters",
}
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
MISSING = "UNIMPLEMENTED"
LARGEST = 1 << 24
# The suite gives up each case after some seconds; the large ones take the longest.
PATIENCE = 3600.0


@dataclass(frozen=True)
class Case:
    """The suite's word on one case.

    Attributes:
        name: its number, such as "6.3.1".
        behavior: whether what came back was what it expected.
        closing: whether the connection ended as it expected.
        code: the close code that came from the server, or None.
        needs_echo: whether it expects messages of its own back.
        result: its sentence on the first.
    """

    name: str
    behavior: str
    closing: str
    code: int | None
    needs_echo: bool
    result: str

    @property
    def group(self) -> str:
        """The group it belongs to."""
        return self.name.partition(".")[0]

    @property
    def passed(self) -> bool:
        """Whether the suite is content."""
        return self.behavior in PASSED and self.closing in PASSED


@asynccontextmanager
async def echo(**changes: Any) -> AsyncIterator[str]:
    """The server's own websocket layer with an echo behind it; its address."""
    settings = read_settings(port=0, **changes)

    async def answer(websocket: Websocket) -> None:
        websocket.end_handshake()
        with suppress(ConnectionClosed):
            async for message in websocket:
                await websocket.send(message)

    listener = Listener(await asyncio.to_thread(bind, settings.host, settings.port))
    await listener.start(answer, _gate(settings), settings, None, on_too_slow=_nothing, on_too_fast=_nothing)
    try:
        yield address_of(listener.sockets, settings)
    finally:
        await listener.close("the bench has ended", seconds=1)


def _nothing(*_: object) -> None:
    """Nobody counts here."""


def _gate(settings: Settings) -> Gate:
    return Gate(
        allowed_origins=settings.allowed_origins,
        require_origin=False,
        loopback=True,
        proxies=Proxies(()),
        handshakes=Handshakes(most=1000, most_per_address=1000, proxies=Proxies(()), on_refused=_nothing),
        admit=lambda _: None,
        authenticate=None,
        metrics=Metrics(CollectorRegistry()),
        healthy=lambda: {"problem": HTTPStatus.OK.phrase},
        ready=lambda: {"problem": HTTPStatus.OK.phrase},
    )


@asynccontextmanager
async def without_welcome(url: str) -> AsyncIterator[str]:
    """A relay to a server that leaves out its first frame; its address."""
    there = urlsplit(url)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(there.hostname, there.port)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await asyncio.gather(_pump(reader, server_writer), _back(server_reader, writer))
        for one in (writer, server_writer):
            one.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, and that nothing more does."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


async def _back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(head)
    if b" 101 " in head.partition(b"\r\n")[0]:
        _, length = await reader.readexactly(2)
        size = int.from_bytes(await reader.readexactly(2)) if length == 126 else length
        welcome = json.loads(await reader.readexactly(size))
        if welcome["type"] != "welcome":
            raise ValueError(f"the server's first message is a {welcome['type']}")
    await _pump(reader, writer)


async def run_suite(wstest: Path, url: str, cases: Sequence[str], folder: Path) -> list[Case]:
    """Let the suite loose on an address.

    Args:
        wstest: its command.
        url: the address.
        cases: which cases, as it names them.
        folder: where its reports go.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    spec = folder / "spec.json"
    server = {"agent": "faqwire", "url": url, "protocols": [SUBPROTOCOL], "options": {"version": 18}}
    spec.write_text(json.dumps({"outdir": str(folder), "servers": [server], "cases": list(cases), "exclude-cases": []}))
    process = await asyncio.create_subprocess_exec(
        str(wstest), "-m", "fuzzingclient", "-s", str(spec), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        status = await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        sys.exit(f"{wstest} ended with status {status}")
    return sorted(_read(folder), key=lambda case: [int(part) for part in case.name.split(".")])


def _read(folder: Path) -> Iterator[Case]:
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    for name, entry in index["faqwire"].items():
        report = json.loads((folder / entry["reportfile"]).read_text(encoding="utf-8"))
        wanted = [event for events in report["expected"].values() for event in events]
        yield Case(
            name,
            entry["behavior"],
            entry["behaviorClose"],
            report["remoteCloseCode"],
            # The large messages' own code compares them; what it expects is not in the report.
            name.startswith("9.") or any(event[0] == "message" for event in wanted),
            report["result"],
        )


def table(cases: Sequence[Case]) -> str:
    """The verdicts by group, as Markdown."""
    lines = ["| cases | | run | passed | verdicts | closing |", "|---|---|---|---|---|---|"]
    for group, what in GROUPS.items():
        some = [case for case in cases if case.group == group]
        if some:
            verdicts, closings = (
                _counts(values) for values in zip(*((c.behavior, c.closing) for c in some), strict=True)
            )
            passed = sum(case.passed for case in some)
            lines.append(f"| {group}.* | {what} | {len(some)} | {passed} | {verdicts} | {closings} |")
    return "\n".join(lines)


def _counts(values: Sequence[str]) -> str:
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common())


def exceptions(cases: Sequence[Case]) -> str:
    """Every case that did not pass, as Markdown, those of one kind in a line; not what the suite says is not there."""
    kinds: dict[tuple[str, str, int | None, str], list[str]] = {}
    for case in cases:
        if not case.passed and case.behavior != MISSING:
            kinds.setdefault((case.behavior, case.closing, case.code, case.result), []).append(case.name)
    lines = [
        f"- {', '.join(names)}: {behavior}, closing {closing}, close code {code or 'none'} ({result})"
        for (behavior, closing, code, result), names in kinds.items()
    ]
    return "\n".join(lines) or "None."


async def measure(wstest: Path, cases: Sequence[str], folder: Path) -> None:
    """Run the suite three times, and print what it says."""
    async with echo(max_frame=LARGEST, max_outgoing=2 * LARGEST, message_burst=UNLIMITED) as url:
        every = await run_suite(wstest, url, cases, folder / "layer")
    print(f"## layer: the websocket layer with an echo\n\n{table(every)}\n\nNot passed:\n\n{exceptions(every)}\n")
    async with echo() as url:
        some = await run_suite(wstest, url, cases, folder / "limits")
    print(f"## limits: the same with default limits\n\n{table(some)}\n\nNot passed:\n\n{exceptions(some)}\n")
    lifted = {"FAQWIRE_CONNECTION_BURST": str(UNLIMITED)}
    async with served(folder / "server.log", lifted) as server, without_welcome(server.url) as url:
        real = await run_suite(wstest, url, cases, folder / "server")
    own = [case for case in real if not case.needs_echo]
    echoed = [case for case in real if case.needs_echo]
    print(f"## server: cases that need no echo\n\n{table(own)}\n\nNot passed:\n\n{exceptions(own)}\n")
    print(f"## server: cases that expect their message back\n\n{table(echoed)}\n")
    print(f"Close codes of these: {_counts([str(case.code) for case in echoed])}")


def main() -> None:
    """Run the suite that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wstest", type=Path, required=True, help="the suite's command")
    parser.add_argument("--cases", nargs="+", default=["*"], help="which cases; default: all")
    parser.add_argument("--reports", type=Path, help="where the suite's own reports go; default: nowhere")
    options = parser.parse_args()
    if not options.wstest.is_file():
        sys.exit(f"{options.wstest} does not exist; --wstest names the command that autobahntestsuite brings")
    print(heading(f"python -m bench.conformance --wstest {options.wstest.name}"))
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(measure(options.wstest, options.cases, options.reports or Path(scratch)))


if __name__ == "__main__":
    main()
