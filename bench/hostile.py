"""Hostile frames by the hundred thousand, against a server that others ask meanwhile.

    python -m bench.hostile [--frames 100000] [--passes 3] [--attackers 8] [--seed 1]

Serves the index in var/ in a process of its own, and sends it what `tests/server/hostile.py` makes of the protocol's
schema: messages that are wrong in every way, frames that are no websocket frames, requests that are no handshakes,
floods of pings and pongs. First with default limits, which most of it does not get past, and a journal; then with
limits of pace lifted, so that every frame is parsed, and a journal; then in several passes without one, the same frames
in each, so that memory can be compared: what a journal keeps grows, and some of its file is in memory. Every reply is
held to `docs/schema.json` and to one for each message, every end to the close codes that may come of it. Meanwhile a
client that behaves asks a question five times a second.

Prints tables, and ends with status 1 where anything is not as it should be: a problem with a reply, a warning or worse
or anything but events in the server's log, a question unanswered, a server that does not live, or a pass after the
first that left more than `NOISE` beyond what the first one did in its memory.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import UNLIMITED, quantile
from bench.machine import heading
from bench.served import Served, served
from tests.server.attacker import Attacker, Judge, Tally
from tests.server.hostile import FIN, PING, PONG, Hostile
from tests.server.raw import Raw, dial

SCHEMA = Path(__file__).parents[1] / "docs" / "schema.json"
MAX_FRAME = 16_384
# The share of frames that end their connection; requests and control frames beside so many frames.
WRONG_FRAMES = 0.05
REQUESTS = 0.01
FLOODS, FLOOD = 10, 10_000
# Bytes by which resident memory may differ between passes: allocators keep some pages, and not always as many.
NOISE = 1 << 20
# How long the server is left alone before its memory is read, in seconds.
REST = 3.0
LIFTED = {
    "FAQWIRE_MESSAGES_PER_SECOND": str(UNLIMITED),
    "FAQWIRE_MESSAGE_BURST": str(UNLIMITED),
    "FAQWIRE_CONNECTIONS_PER_SECOND": str(UNLIMITED),
    "FAQWIRE_CONNECTION_BURST": str(UNLIMITED),
}


@dataclass
class Bystander:
    """A client that behaves: what became of its questions."""

    milliseconds: list[float] = field(default_factory=list)
    replies: Counter[str] = field(default_factory=Counter)

    async def ask(self, client: Raw) -> None:
        """Ask for ever, a question in five tenths of a second whose answer is not known already."""
        for number in range(sys.maxsize):
            started = time.perf_counter()
            await client.ask("1", f"has order number {number} been sent off yet", budget_ms=5000)
            reply = await client.receive()
            self.milliseconds.append(1000 * (time.perf_counter() - started))
            self.replies[reply.get("code") or reply["type"]] += 1
            await asyncio.sleep(0.2)


@dataclass
class Pass:
    """One pass: what it found."""

    name: str
    tally: Tally
    bystander: Bystander
    seconds: float
    resident: int
    before: int


class Bench:
    """Attacks one server.

    Args:
        frames: how many of them in a pass, floods and requests not counted.
        attackers: how many connections at a time send them.
        seed: what they are made of.
    """

    def __init__(self, frames: int, attackers: int, seed: int) -> None:
        self._frames = frames
        self._attackers = attackers
        self._seed = seed
        self._schema = json.loads(SCHEMA.read_text(encoding="utf-8"))

    async def run(self, server: Served, name: str, *, limited: bool) -> Pass:
        """Send all of it once, while somebody else asks."""
        tally, bystander, before = Tally(), Bystander(), server.resident
        started = time.perf_counter()
        async with dial(server.url) as client:
            asking = asyncio.create_task(bystander.ask(client))
            await self._attack(server.url, tally, limited=limited)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
        seconds = time.perf_counter() - started
        await asyncio.sleep(REST)
        return Pass(name, tally, bystander, seconds, server.resident, before)

    async def _attack(self, url: str, tally: Tally, *, limited: bool) -> None:
        judge = Judge(self._schema, tally)
        attackers = [Attacker(url, judge, tally, limited=limited) for _ in range(self._attackers)]
        share = math.ceil(self._frames / self._attackers)
        sources = [Hostile(self._schema, self._seed * 1000 + number, MAX_FRAME) for number in range(self._attackers)]
        # Behind a limit most frames are refused unread; fewer connections end early, and are refused less often.
        wrong = 0.0 if limited else WRONG_FRAMES
        await asyncio.gather(
            *(attacker.run(source.attacks(share, wrong)) for attacker, source in zip(attackers, sources, strict=True))
        )
        await asyncio.gather(*(attackers[0].flood(FIN | opcode, FLOOD) for opcode in (PING, PONG) * FLOODS))
        if limited:
            return  # what the limit of connections allows is used up
        for request in sources[0].requests(round(self._frames * REQUESTS)):
            await attackers[0].ask_wrongly(request)


def faults_of(done: Pass) -> list[str]:
    """What was not as it should be."""
    faults = [f"{problem}: {example}" for problem, example in done.tally.problems.items()]
    if unanswered := {kind: count for kind, count in done.bystander.replies.items() if kind != "answer"}:
        faults.append(f"the client that behaves got {unanswered}")
    if not done.bystander.replies:
        faults.append("the client that behaves asked nothing")
    return [f"{done.name}: {fault}" for fault in faults]


def log_faults(server: Served) -> list[str]:
    """What the server's log has that it should not."""
    return [f"the log: {event}"[:500] for event in server.events() if event.get("level") not in {"debug", "info"}]


def report(passes: list[Pass]) -> str:
    """The tables, as Markdown."""
    mebibyte = 1 << 20
    lines = [
        "| pass | frames | a second | control frames | requests | asked meanwhile | answered | ms p50 | p99 | most |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for one in passes:
        sent, asked = one.tally.sent, one.bystander.milliseconds
        control = sent["ping flood"] + sent["pong flood"]
        frames = sent.total() - control - sent["requests"]
        lines.append(
            f"| {one.name} | {frames:,} | {frames / one.seconds:,.0f} | {control:,} | {sent['requests']:,} "
            f"| {len(asked)} | {one.bystander.replies['answer']} "
            f"| {quantile(asked, 0.5) or 0:.1f} | {quantile(asked, 0.99) or 0:.1f} | {max(asked, default=0):.1f} |"
        )
    lines += ["", "| pass | resident before, MiB | after | added |", "|---|---|---|---|"]
    lines += [
        f"| {one.name} | {one.before / mebibyte:.1f} | {one.resident / mebibyte:.1f} "
        f"| {(one.resident - one.before) / mebibyte:+.2f} |"
        for one in passes
    ]
    tables: tuple[tuple[str, list[Counter[Any]]], ...] = (
        ("frames sent", [one.tally.sent for one in passes]),
        ("replies, errors by their code", [one.tally.replies for one in passes]),
        ("connections ended, by what was sent and the close code", [one.tally.ends for one in passes]),
        ("requests, by the status of the response (0: none)", [one.tally.statuses for one in passes]),
    )
    for title, counts in tables:
        lines += ["", f"| {title} | {' | '.join(one.name for one in passes)} |", "|---" * (len(passes) + 1) + "|"]
        for key in sorted({key for count in counts for key in count}, key=str):
            name = key if isinstance(key, str) else f"{key[0]}: {key[1]}"
            lines.append(f"| {name} | {' | '.join(f'{count[key]:,}' for count in counts)} |")
    return "\n".join(lines)


async def measure(options: argparse.Namespace, folder: Path) -> None:
    """Run all passes, and print what they come to."""
    passes, faults = list[Pass](), list[str]()
    bench = Bench(options.frames, options.attackers, options.seed)
    journal = {"FAQWIRE_JOURNAL": str(folder / "journal.db")}
    fewer = Bench(min(options.frames, 20_000), options.attackers, options.seed)
    for name, limited in (("default limits", True), ("lifted, journal", False)):
        async with served(folder / f"{name}.log", journal if limited else {**journal, **LIFTED}) as server:
            passes.append(await fewer.run(server, name, limited=limited))
            faults += log_faults(server)
    async with served(folder / "lifted.log", LIFTED) as server:
        for number in range(1, options.passes + 1):
            passes.append(await bench.run(server, f"lifted, pass {number}", limited=False))
            if not server.is_running:
                faults.append("the server is gone")
        faults += log_faults(server)
    faults += [fault for one in passes for fault in faults_of(one)]
    first, *later = passes[2:]
    faults += [
        f"{one.name} left {one.resident - first.resident} bytes more than the first pass"
        for one in later
        if one.resident - first.resident > NOISE
    ]
    print(heading(f"python -m bench.hostile --frames {options.frames} --passes {options.passes} --seed {options.seed}"))
    print(report(passes))
    print("\nFaults:\n" + ("\n".join(f"- {fault}" for fault in faults) or "\nnone."))
    if faults:
        sys.exit(1)


def main() -> None:
    """Attack as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="hostile frames in a pass")
    parser.add_argument("--passes", type=int, default=3, help="passes with limits lifted, at least 1")
    parser.add_argument("--attackers", type=int, default=8, help="connections at a time that send them")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if min(options.frames, options.passes, options.attackers) < 1:
        sys.exit("--frames, --passes and --attackers are at least 1")
    with tempfile.TemporaryDirectory(prefix="faqwire-hostile-") as folder:
        asyncio.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
