"""What an idle connection costs: memory of a real `faqwire serve` before, with, and after so many of them.

    python -m bench.idle [--connections 10000] [--rounds 2] [--pings 2] [--index var/index] [--model var/model]

Linux only: memory is read from /proc/PID/smaps_rollup of the server and of the processes that it has started. The
clients are plain websockets on loopback, in a process of their own (`bench.crowd`): each shakes hands, reads the
welcome, and from then on only answers websocket pings. Limits by address are lifted by settings; all else is as it
comes. "Settled" is once every client has answered `--pings` pings, so that what keeping connections alive costs is in
it. Then all leave, and as many come again: what each further round adds is a leak.

Memory before is read after as many questions as are asked in each round, and after some connections have come and
gone, so that what a first message or a first client costs once is no connection's. Replies are timed from another
process than the idle clients', one question at a time, in turn with a second server to which nobody else is connected.
"""

import argparse
import asyncio
import csv
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

from bench.crowd import SPARE, Crowd, Told, room_for_files
from bench.load import UNLIMITED
from bench.machine import heading
from bench.served import address_in
from server.client import Client
from server.messages import Answer

_FAQWIRE = Path(sys.executable).with_name("faqwire")
# The bar, in KiB of resident memory for each connection.
BAR = 20
# Clients that come and go before anything is measured, and questions of which a median is taken.
WARM_UP = 200
QUESTIONS = 400
# Time for an answer where the machine has other work.
BUDGET_MS = 5000


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a server, in KiB.

    Attributes:
        rss: resident.
        pss: resident, what is shared counted in parts.
        private: resident, and nobody else's.
    """

    rss: int
    pss: int
    private: int


def memory_of(pid: int) -> Memory:
    """The memory of a process and of those that it has started, summed."""
    total = Memory(0, 0, 0)
    for one in _family(pid):
        text = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii")
        fields = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
        private = fields["Private_Clean"] + fields["Private_Dirty"]
        total = Memory(total.rss + fields["Rss"], total.pss + fields["Pss"], total.private + private)
    return total


def _family(pid: int) -> list[int]:
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text(encoding="ascii").split()
    ]
    return [pid, *(one for child in children for one in _family(child))]


@contextmanager
def serving(options: argparse.Namespace) -> Iterator[tuple[int, str]]:
    """A server for so many connections; its process and its address."""
    connections = str(options.connections + WARM_UP)
    environment = {
        **os.environ,
        "FAQWIRE_MAX_CONNECTIONS": connections,
        "FAQWIRE_MAX_CONNECTIONS_PER_ADDRESS": connections,
        "FAQWIRE_CONNECTIONS_PER_SECOND": str(UNLIMITED),
        "FAQWIRE_CONNECTION_BURST": str(UNLIMITED),
        "FAQWIRE_MESSAGES_PER_SECOND": str(UNLIMITED),
        "FAQWIRE_MESSAGE_BURST": str(UNLIMITED),
        "FAQWIRE_IDLE_SECONDS": "86400",
        "FAQWIRE_CACHE_SIZE": "0",
        "FAQWIRE_METRICS_PORT": "off",
    }
    command = [_FAQWIRE, "serve", "--port", "0", "--index", options.index, "--model", options.model]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            url = next(filter(None, map(address_in, process.stdout or ())), None)
            if url is None:
                raise SystemExit(f"faqwire serve ended with status {process.wait()} and no address")
            yield process.pid, url
        finally:
            process.send_signal(signal.SIGTERM)


async def replies(urls: Sequence[str], texts: Iterable[str]) -> list[float]:
    """Ask several servers the same questions in turn, one at a time; each one's median reply, in milliseconds.

    Raises:
        SystemExit: a question got no answer.
    """
    milliseconds: list[list[float]] = [[] for _ in urls]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(url)) for url in urls]
        for _, text in zip(range(QUESTIONS), texts, strict=False):
            for client, taken in zip(clients, milliseconds, strict=True):
                started = time.perf_counter()
                reply = await client.ask(text, budget_ms=BUDGET_MS)
                taken.append(1000 * (time.perf_counter() - started))
                if not isinstance(reply, Answer):
                    raise SystemExit(f"a question ended in {reply}")
    return [statistics.median(taken) for taken in milliseconds]


@dataclass(frozen=True, slots=True)
class Round:
    """Clients that came and went.

    Attributes:
        coming: how long their connecting took, in seconds.
        connected, settled, left: the server's memory, in order.
        reply: median reply of the server while they were there, in milliseconds.
        reference: the same of a server without any, asked in turn with it.
    """

    coming: float
    connected: Memory
    settled: Memory
    left: Memory
    reply: float
    reference: float


def measure(options: argparse.Namespace, texts: list[str]) -> tuple[Memory, list[Round]]:
    """Memory before anybody came, and the rounds."""
    count: int = options.connections
    rounds: list[Round] = []
    with serving(options) as (_, empty), serving(options) as (pid, url), Crowd(url) as crowd:
        asyncio.run(replies([url, empty], cycle(texts)))
        _held(crowd.come(WARM_UP), WARM_UP)
        _held(crowd.leave(), 0)
        before = memory_of(pid)
        for _ in range(options.rounds):
            coming = _held(crowd.come(count), count).seconds
            connected = memory_of(pid)
            _held(crowd.stay(options.pings), count)
            settled = memory_of(pid)
            reply, reference = asyncio.run(replies([url, empty], cycle(texts)))
            _held(crowd.leave(), 0)
            rounds.append(Round(coming, connected, settled, memory_of(pid), reply, reference))
    return before, rounds


def show(before: Memory, rounds: list[Round], count: int) -> bool:
    """Print tables; whether the bar is kept."""
    print("| when | RSS MiB | PSS MiB | private MiB | RSS above before, KiB a connection |\n|---|---|---|---|---|")
    rows = [("before", before)]
    for number, one in enumerate(rounds, 1):
        who = f"round {number}, {count:,}"
        rows += [(f"{who} connected", one.connected), (f"{who} settled", one.settled), (f"{who} left", one.left)]
    for when, memory in rows:
        sizes = " | ".join(f"{size / 1024:.1f}" for size in (memory.rss, memory.pss, memory.private))
        print(f"| {when} | {sizes} | {(memory.rss - before.rss) / count:.2f} |")
    first = (rounds[0].settled.rss - before.rss) / count
    print("\n| what | figure | bar |\n|---|---|---|")
    print(f"| resident memory of an idle connection, settled | {first:.2f} KiB | {BAR} KiB |")
    for number, (one, other) in enumerate(pairwise(rounds), 2):
        growth = (other.settled.rss - one.settled.rss) / count
        print(f"| what round {number} adds to the one before | {growth:+.2f} KiB a connection | |")
    print(f"| connecting {count:,} | {', '.join(f'{one.coming:.1f}' for one in rounds)} s | |")
    for number, one in enumerate(rounds, 1):
        pair = f"{one.reply:.2f} ms against {one.reference:.2f} ms"
        print(f"| median reply beside {count:,}, against none, round {number} | {pair} | |")
    ratio = statistics.mean(one.reply for one in rounds) / statistics.mean(one.reference for one in rounds)
    print(f"| ratio | {ratio:.3f} | |")
    return first <= BAR


def _held(told: Told, expected: int) -> Told:
    """Give back what the clients tell, unless they are not as many as expected."""
    if told.failed is not None or told.present != expected:
        raise SystemExit(f"{told.present} clients of {expected} are connected ({told.failed})")
    return told


def main() -> None:
    """Measure what the command line describes; the status is 1 where the bar is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2, help="how often so many come and go")
    parser.add_argument("--pings", type=int, default=2, help="of the server's that each client answers first")
    parser.add_argument("--index", type=Path, default=Path("var/index"))
    parser.add_argument("--model", type=Path, default=Path("var/model"))
    parser.add_argument("--messages", type=Path, default=Path("intents/samples/shop_messages.csv"))
    options = parser.parse_args()
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("memory is read from /proc/PID/smaps_rollup, which this system does not have")
    if min(options.connections, options.pings, options.rounds) < 1:
        raise SystemExit("--connections, --pings and --rounds are 1 or more")
    if (room := room_for_files(options.connections + WARM_UP) - WARM_UP) < options.connections:
        raise SystemExit(
            f"the hard limit of open files leaves room for {room} connections of {options.connections}; raise it "
            f"(`ulimit -Hn` to {options.connections + WARM_UP + SPARE} or more), or ask for fewer with --connections"
        )
    with options.messages.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    print(heading("python -m " + " ".join(["bench.idle", *sys.argv[1:]])))
    if not show(*measure(options, texts), options.connections):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
