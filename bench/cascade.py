"""Deadlines with the cascade on: below capacity, at twice of it, and with small and large budgets.

    python -m bench.cascade --data PATH/TO/banking77 --cross-encoder var/cross-encoder [--model var/model] [--runs 5]

`faqwire export faqwire/confirmer -o var/cross-encoder` makes the cross-encoder; any other bundle of one will do.

Builds the index of `train.csv` with the cross-encoder aside and serves it; the load client, a process of its own on the
same cores, asks the messages of `test.csv` in an open loop and counts from the intended send. No answers are cached.

- capacity: the highest rate at which 99 % of what is sent is answered inside the budget, found by bisection
- at 80 % of it: share inside the budget, and what the cross-encoder did
- at 200 %: goodput (answers inside the budget a second) beside the peak of all runs, refusals, lost or doubled ends
- budgets of 20, 50 and 200 ms, at 25 % of capacity: candidates read, decisions changed, and by how much replies passed
  their deadline on the server's clock
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from bench.load import UNLIMITED
from bench.machine import heading
from export.bundle import open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder, cut_to
from export.runtime.session import CPU, Device
from intents.build import Options, Reporter, build_index
from intents.formats import load_faq
from server.app import Server
from server.cores import usable_cores
from server.engine import load_engine
from server.logs import configure_logs
from server.process import settle
from server.settings import read_settings

BUDGET = 100
BUDGETS = (20, 50, 200)
LEAST_RATE, MOST_RATE = 25.0, 4000.0
# Bisection ends when the highest rate that passed and the lowest that did not are this close.
CLOSE = 1.05

_say = Console(stderr=True).print

Figures = dict[str, Any]
Sample = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Bench:
    """A running server, and the messages to ask it."""

    server: Server
    messages: Path
    peak: float = 0.0
    seed: int = 0
    log: list[Figures] = field(default_factory=list)

    async def load(self, rate: float, seconds: float, budget: int = BUDGET) -> Figures:
        """One run of the load client."""
        self.seed += 1
        # fmt: off
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.load", self.server.url, "--messages", str(self.messages),
            "--rate", str(rate), "--seconds", str(seconds), "--budget-ms", str(budget), "--seed", str(self.seed),
            stdout=asyncio.subprocess.PIPE,
        )
        # fmt: on
        figures: Figures = json.loads((await client.communicate())[0])
        if budget == BUDGET:
            self.peak = max(self.peak, figures["goodput"])
        _say(
            f"{rate:7.0f}/s, {budget} ms: {figures['inside_budget']:.4f} inside, goodput {figures['goodput']:.0f}/s, "
            f"p99.9 {figures['ms']['p99.9'] or 0:.1f} ms, {figures['confirmations']} {figures['errors']}"
        )
        return figures

    async def capacity(self, seconds: float) -> float:
        """The highest rate at which 99 % are inside the budget, in two runs: one may have been lucky."""
        low, high = LEAST_RATE, MOST_RATE
        rate = 800.0
        while high / low > CLOSE:
            passed = await self._holds(rate, seconds) and await self._holds(rate, seconds)
            low, high = (rate, high) if passed else (low, rate)
            rate = (low * high) ** 0.5
        return low

    async def _holds(self, rate: float, seconds: float) -> bool:
        return bool((await self.load(rate, seconds))["inside_budget"] >= 0.99)

    async def scrape(self) -> Sample:
        """The metrics page."""
        url = self.server.metrics_url
        if url is None:
            raise RuntimeError("the bench needs the metrics page")
        page = await asyncio.to_thread(_get, url)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }


def _get(url: str) -> str:
    with urllib.request.urlopen(url) as page:  # noqa: S310 the bench's own server
        text: str = page.read().decode()
        return text


def _confirmed(figures: Figures) -> float:
    """The share of answered messages that the cross-encoder read."""
    read = sum(figures["confirmations"].get(status, 0) for status in ("confirmed", "overruled", "rejected"))
    return float(read / max(1, sum(figures["confirmations"].values())))


def _median(runs: list[Figures], what: Callable[[Figures], float | None]) -> str:
    values = [value for run in runs if (value := what(run)) is not None]
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})" if values else "-"


async def measure(server: Server, messages: Path, options: argparse.Namespace) -> None:
    """Run everything and print the tables."""
    bench = Bench(server, messages)
    await bench.load(200, 5)  # what a first run pays for is nobody's
    capacity = await bench.capacity(options.search_seconds)
    calm = [await bench.load(0.8 * capacity, options.seconds) for _ in range(options.runs)]
    storm = [await bench.load(2 * capacity, options.storm_seconds) for _ in range(options.runs)]
    print(f"Capacity: {capacity:.0f} messages a second, budget {BUDGET} ms.\n")
    print(
        f"| at 80 % ({0.8 * capacity:.0f}/s), {options.runs} runs of {options.seconds:g} s | median (least to most) |"
    )
    print("|---|---|")
    print(f"| share of all replies inside the budget | {_median(calm, lambda f: f['inside_budget'])} |")
    print(f"| share of answered messages that were confirmed | {_median(calm, _confirmed)} |")
    for share in ("p50", "p99", "p99.9"):
        print(f"| {share}, ms, from the intended send | {_median(calm, lambda f, s=share: f['ms'][s])} |")  # type: ignore[misc]
    print(f"| errors in all runs | {sum(sum(f['errors'].values()) for f in calm)} of {sum(f['sent'] for f in calm)} |")
    print(
        f"\n| at 200 % ({2 * capacity:.0f}/s), {options.runs} runs of {options.storm_seconds:g} s | median |\n|---|---|"
    )
    print(f"| goodput beside the peak of {bench.peak:.0f}/s | {_median(storm, lambda f: f['goodput'] / bench.peak)} |")
    print(f"| median refusal, ms, from the intended send | {_median(storm, lambda f: f['refused_ms']['p50'])} |")
    print(f"| 99 % of refusals, ms | {_median(storm, lambda f: f['refused_ms']['p99'])} |")
    print(f"| share of answers inside the budget | {_median(storm, lambda f: f['of_answers_inside_budget'])} |")
    print(f"| lost, doubled | {sum(f['lost'] for f in storm)}, {sum(f['doubled'] for f in storm)} |")
    heads = ("confirmed", "candidates", "changed", "p50 ms", "p99.9 ms", "late > 2 ms", "statuses")
    print(f"\n| budget, at {capacity / 4:.0f}/s | {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|---|---|")
    for budget in BUDGETS:
        print(await _row(bench, capacity / 4, options.seconds, budget))


async def _row(bench: Bench, rate: float, seconds: float, budget: int) -> str:
    before = await bench.scrape()
    figures = await bench.load(rate, seconds, budget)
    after = await bench.scrape()

    def gained(name: str, **labels: str) -> float:
        key = (f"faqwire_{name}", tuple(sorted(labels.items())))
        return after.get(key, 0.0) - before.get(key, 0.0)

    read = gained("candidates_confirmed_count")
    candidates = gained("candidates_confirmed_sum") / read if read else 0.0
    late = gained("deadline_misses_total") - gained("lateness_seconds_bucket", le="0.002")
    return (
        f"| {budget} ms | {_confirmed(figures):.1%} | {candidates:.2f} | {gained('decisions_changed_total'):.0f} | "
        f"{figures['ms']['p50']:.1f} | {figures['ms']['p99.9']:.1f} | {late:.0f} of {figures['sent']} "
        f"({late / figures['sent']:.3%}) | {figures['confirmations']} {figures['errors'] or ''} |"
    )


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--cross-encoder", type=Path, required=True, help="bundle of the cross-encoder")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="of a run at 80 %%, and of one with another budget")
    parser.add_argument("--storm-seconds", type=float, default=20, help="of a run at 200 %%")
    parser.add_argument("--search-seconds", type=float, default=10, help="of a run in search of the capacity")
    options = parser.parse_args()
    configure_logs("warning", "console")
    with tempfile.TemporaryDirectory(prefix="faqwire-cascade-") as aside:
        index = Path(aside) / "index"
        settings = read_settings(
            model=options.model,
            cross_encoder=options.cross_encoder,
            index=index,
            port=0,
            metrics_port=0,
            cache_size=0,
            max_in_flight=10_000,
            messages_per_second=UNLIMITED,
            message_burst=UNLIMITED,
            budget_ms=BUDGET,
        )
        building = BiEncoder(open_bundle(options.model, kind="bi-encoder"), "fp32", Device(CPU), threads=usable_cores())
        pairs = cut_to(open_bundle(options.cross_encoder, kind="cross-encoder"), settings.pair_tokens)
        reading = CrossEncoder(pairs, "fp32", Device(CPU), threads=usable_cores())
        faq = load_faq(options.data / "train.csv").faq
        build_index(faq, building, index, Options(), now=datetime.now(UTC), reporter=Reporter(), cross_encoder=reading)
        print(
            heading(f"python -m bench.cascade --data banking77 --cross-encoder var/cross-encoder --runs {options.runs}")
        )

        engine = load_engine(settings)
        settle()  # as `faqwire serve` does

        async def run() -> None:
            server = Server(engine, settings)
            await server.start()
            try:
                await measure(server, options.data / "test.csv", options)
            finally:
                await server.stop()

        asyncio.run(run())


if __name__ == "__main__":
    main()
