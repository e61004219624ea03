"""What an idle connection costs: memory of a real `faqwire serve` before, with, and after so many of them.

    python -m bench.idle [--connections 10000] [--index var/index] [--model var/model] [--pings 2]

Linux only: memory is read from /proc/PID/smaps_rollup of the server and of the processes that it has started. The
clients are plain websockets on loopback, in a process of their own (`bench.crowd`): each shakes hands, reads the
welcome, and from then on only answers websocket pings. Limits by address are lifted by settings; all else is as it
comes. "Settled" is once every client has answered `--pings` pings, so that what keeping connections alive costs is in
it. Then all leave, and as many come again: what the second round adds to the first is a leak.

Memory before is read after as many questions as are asked in all other places, and after some connections have come
and gone, so that what a first message or a first client costs once is no connection's. Replies are timed one at a
time, from another process than the idle clients', and compared within the run.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from bench.crowd import SPARE, Crowd, Told, room_for_files
from bench.load import UNLIMITED, Load
from bench.machine import heading

_ADDRESS = re.compile(r"listening on (ws://\S+)")
_FAQWIRE = Path(sys.executable).with_name("faqwire")
# The bar, in KiB of resident memory for each connection.
BAR = 20
# Clients that come and go before anything is measured, and questions of which a median is taken.
WARM_UP = 200
QUESTIONS = 400


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
            assert process.stdout is not None  # noqa: S101 for the type checker: it is a pipe
            url = next((found[1] for line in process.stdout if (found := _ADDRESS.search(line))), None)
            if url is None:
                raise SystemExit(f"faqwire serve ended with status {process.wait()} and no address")
            yield process.pid, url
        finally:
            process.send_signal(signal.SIGTERM)


def median_reply(url: str, texts: list[str]) -> float:
    """Ask one question after the other; the median of the replies' times, in milliseconds.

    Raises:
        SystemExit: a question got no answer.
    """
    seen = asyncio.run(Load(1, None, 5.0).closed_loop(url, cycle(texts), 1, QUESTIONS))
    if len(seen.answered) != QUESTIONS:
        raise SystemExit(f"of {QUESTIONS} questions {len(seen.answered)} were answered; errors: {dict(seen.errors)}")
    return statistics.median(seen.answered)


def measure(options: argparse.Namespace, texts: list[str]) -> bool:
    """Measure, and print tables; whether the bar is kept."""
    count: int = options.connections
    with serving(options) as (pid, url), Crowd(url) as crowd:
        median_reply(url, texts)
        _held(crowd.come(WARM_UP), WARM_UP)
        _held(crowd.leave(), 0)
        before, alone = memory_of(pid), median_reply(url, texts)
        rows: list[tuple[str, Memory]] = []
        coming: list[float] = []
        with_all: list[float] = []
        settled: list[Memory] = []
        for number in ("first", "second"):
            coming.append(_held(crowd.come(count), count).seconds)
            rows.append((f"{number} {count:,}, connected", memory_of(pid)))
            _held(crowd.stay(options.pings), count)
            settled.append(memory_of(pid))
            rows.append((f"{number} {count:,}, settled", settled[-1]))
            with_all.append(median_reply(url, texts))
            _held(crowd.leave(), 0)
            rows.append((f"{number} {count:,} have left", memory_of(pid)))
        alone_again = median_reply(url, texts)
    print("| when | RSS MiB | PSS MiB | private MiB | RSS above before, KiB a connection |\n|---|---|---|---|---|")
    for when, memory in [("before", before), *rows]:
        sizes = " | ".join(f"{size / 1024:.1f}" for size in (memory.rss, memory.pss, memory.private))
        print(f"| {when} | {sizes} | {(memory.rss - before.rss) / count:.2f} |")
    each = (settled[0].rss - before.rss) / count
    growth = (settled[1].rss - settled[0].rss) / count
    mean = (alone + alone_again) / 2
    print("\n| what | figure | bar |\n|---|---|---|")
    print(f"| resident memory of an idle connection | {each:.2f} KiB | {BAR} KiB |")
    print(f"| what the second round adds to the first | {growth:+.2f} KiB a connection | |")
    print(f"| connecting {count:,} | {coming[0]:.1f} s, again {coming[1]:.1f} s | |")
    print(f"| median reply with none connected, before and after | {alone:.2f} ms, {alone_again:.2f} ms | |")
    print(f"| median reply with {count:,} connected | {with_all[0]:.2f} ms, {with_all[1]:.2f} ms | |")
    print(f"| ratio | {statistics.mean(with_all) / mean:.3f} | |")
    return each <= BAR


def _held(told: Told, expected: int) -> Told:
    """Give back what the clients tell, unless they are not as many as expected."""
    if told.failed is not None or told.present != expected:
        raise SystemExit(f"{told.present} clients of {expected} are connected ({told.failed})")
    return told


def main() -> None:
    """Measure what the command line describes; the status is 1 where the bar is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--pings", type=int, default=2, help="of the server's that each client answers first")
    parser.add_argument("--index", type=Path, default=Path("var/index"))
    parser.add_argument("--model", type=Path, default=Path("var/model"))
    parser.add_argument("--messages", type=Path, default=Path("intents/samples/shop_messages.csv"))
    options = parser.parse_args()
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("memory is read from /proc/PID/smaps_rollup, which this system does not have")
    if options.connections < 1 or options.pings < 1:
        raise SystemExit("--connections and --pings are 1 or more")
    if (room := room_for_files(options.connections + WARM_UP) - WARM_UP) < options.connections:
        raise SystemExit(
            f"the hard limit of open files leaves room for {room} connections of {options.connections}; raise it "
            f"(`ulimit -Hn` to {options.connections + WARM_UP + SPARE} or more), or ask for fewer with --connections"
        )
    with options.messages.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    print(heading("python -m " + " ".join(["bench.idle", *sys.argv[1:]])))
    if not measure(options, texts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
