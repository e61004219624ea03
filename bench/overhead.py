"""What limits, journal, metrics and logs cost: throughput at saturation with all of them, beside that with none.

    python -m bench.overhead --data PATH/TO/banking77 [--model var/model] [--pairs 10] [--rounds 6] [--count 2000]

Builds the index of `train.csv` aside. Two servers, each a process of its own, take the load in turns: the messages of
`test.csv` over eight connections, 64 in flight, no answers cached. The client is a process on the same cores. While
one server is loaded the other has nothing to do. The order changes from round to round, and the servers are started
anew for each pair: two processes of the same program differ by some per cent for as long as they live.

- all on: as an operator serves. Every limit is checked (none is reached), asks go into a journal (SQLite, redacted),
  metrics are counted and scraped every five seconds, the log is JSON at `info` in a file, slow messages are looked out
  for
- all off: no journal, no page, no log but errors, and limits and metrics replaced by functions that do nothing
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import server.telemetry
from bench.load import UNLIMITED
from bench.machine import heading
from export.bundle import open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.session import CPU, Device
from intents.build import Options, Reporter, build_index
from intents.formats import load_faq
from server.admission import Admission
from server.app import Server
from server.cores import usable_cores
from server.engine import load_engine
from server.logs import configure_logs
from server.pace import Pace
from server.process import settle
from server.settings import read_settings

ON, OFF = "all on", "all off"
IN_FLIGHT = 64


class Nothing:
    """A metric that counts nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def labels(self, *_: Any, **__: Any) -> "Nothing":
        """Itself."""
        return self

    def inc(self, *_: Any) -> None:
        """Nothing."""

    dec = set = observe = inc


def main() -> None:
    """Measure, or be one of the servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--model", type=Path, default=Path("var/model"))
    parser.add_argument("--pairs", type=int, default=10, help="how often both are started")
    parser.add_argument("--rounds", type=int, default=6, help="loads of each, for each pair")
    parser.add_argument("--count", type=int, default=2000, help="messages of a round, for each server")
    parser.add_argument("--serve", choices=[ON, OFF], help=argparse.SUPPRESS)
    parser.add_argument("--aside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve, options.model, options.aside)
        return
    with tempfile.TemporaryDirectory(prefix="faqwire-overhead-") as scratch:
        aside = Path(scratch)
        faq, encoder = (
            load_faq(options.data / "train.csv").faq,
            BiEncoder(open_bundle(options.model), "fp32", Device(CPU), threads=usable_cores()),
        )
        build_index(faq, encoder, aside / "index", Options(), now=datetime.now(UTC), reporter=Reporter())
        del encoder
        _measure(options, aside)


def _measure(options: argparse.Namespace, aside: Path) -> None:
    rates: dict[str, list[float]] = {ON: [], OFF: []}
    ratios = []
    for pair in range(options.pairs):
        own = _pair(options, aside)
        for name, seen in own.items():
            rates[name] += seen
        # Every load has as many messages: the sums of times are compared.
        ratios.append(sum(1 / rate for rate in own[OFF]) / sum(1 / rate for rate in own[ON]))
        print(f"pair {pair + 1}: {ratios[-1]:.3f}", file=sys.stderr)
    print(heading(f"python -m bench.overhead --data banking77 --pairs {options.pairs} --rounds {options.rounds}"))
    print("\n| | messages a second, median | least | most |\n|---|---|---|---|")
    for name, seen in rates.items():
        print(f"| {name} | {statistics.median(seen):.0f} | {min(seen):.0f} | {max(seen):.0f} |")
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    print(
        f"\nOn / off: {statistics.mean(ratios):.3f} +- {error:.3f} (mean of {len(ratios)} pairs, and its standard "
        f"error), median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}."
    )


def _pair(options: argparse.Namespace, aside: Path) -> dict[str, list[float]]:
    """The rates of two servers that are started for it."""
    rates: dict[str, list[float]] = {ON: [], OFF: []}
    with _running(ON, options, aside) as on, _running(OFF, options, aside) as off, _scraping(on["metrics"]):
        places = {ON: on["url"], OFF: off["url"]}
        for url in places.values():
            _load(url, options)  # what a first run pays for is nobody's
        for turn in range(options.rounds):
            for name in sorted(places, reverse=turn % 2 == 1):
                rates[name].append(_load(places[name], options))
    return rates


def _load(url: str, options: argparse.Namespace) -> float:
    """Messages a second of one run."""
    # fmt: off
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", url, "--messages", str(options.data / "test.csv"),
         "--in-flight", str(IN_FLIGHT), "--count", str(options.count), "--budget-ms", "10000", "--patience", "120"],
        stdout=subprocess.PIPE, text=True, check=True,
    )
    # fmt: on
    figures = json.loads(done.stdout)
    if figures["errors"] or figures["lost"]:
        sys.exit(f"not all were answered: {figures['errors']}, {figures['lost']} lost")
    return float(figures["rate"])


@contextmanager
def _running(name: str, options: argparse.Namespace, aside: Path) -> Iterator[dict[str, str]]:
    """A server in a process; gives where it is."""
    # fmt: off
    command = [sys.executable, "-m", "bench.overhead", "--serve", name, "--data", str(options.data),
               "--model", str(options.model), "--aside", str(aside)]
    # fmt: on
    with (aside / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            if process.stdout is None or not (line := process.stdout.readline()):
                sys.exit((aside / f"{name}.log").read_text())
            yield json.loads(line)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _scraping(url: str) -> Iterator[None]:
    """Read the metrics page every five seconds; Prometheus does so every fifteen."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(5):
            with suppress(OSError), urllib.request.urlopen(url) as page:  # noqa: S310 the bench's own server
                page.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _serve(name: str, model: Path, aside: Path) -> None:
    common: dict[str, Any] = {
        "model": model,
        "index": aside / "index",
        "port": 0,
        "cache_size": 0,
        "messages_per_second": UNLIMITED,
        "message_burst": UNLIMITED,
        "max_budget_ms": 10_000,
    }
    if name == ON:
        settings = read_settings(metrics_port=0, journal=str(aside / "journal.sqlite"), log_format="json", **common)
    else:
        settings = read_settings(metrics_port="off", journal="off", log_level="error", slow_ms="off", **common)
        _do_nothing()
    configure_logs(settings.log_level, settings.log_format)
    engine = load_engine(settings)
    settle()
    asyncio.run(_run(Server(engine, settings)))


async def _run(running: Server) -> None:
    def announce(url: str) -> None:
        print(json.dumps({"url": url, "metrics": running.metrics_url}), flush=True)

    await running.run(announce)


def _do_nothing() -> None:
    """Replace limits and metrics by what costs nothing."""
    for kind in ("Counter", "Gauge", "Histogram"):
        setattr(server.telemetry, kind, Nothing)
    setattr(Pace, "check", lambda *_: None)  # noqa: B010 a method is replaced
    setattr(Pace, "takes_frame", lambda *_, **__: True)  # noqa: B010
    for method in ("refuse", "enter", "leave"):
        setattr(Admission, method, lambda *_: None)


if __name__ == "__main__":
    main()
