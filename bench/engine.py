"""The bare model in its best loop against the same texts through the pipeline in process, and through the socket.

    python -m bench.engine --data PATH/TO/banking77 [--model var/model] [--rounds 5]

Builds the index of `train.csv` aside and asks what of `test.csv` does not equal a phrasing; no cache, and no
confirmation. Every round runs, in
turn: each arrangement of the bare loop (tokenizer, session, the same search), the pipeline, and the socket with the
load client as a process of its own on the same cores. Ratios are to the best arrangement within the round, and their
medians are printed. As many messages are in flight everywhere as `--in-flight` says: the bare loop sorts by length
within that many, and no more.

Idle: one message at a time, through the pipeline and through one bare tokenize, run and search, alternating.
"""

import argparse
import asyncio
import csv
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry
from rich.progress import track

from bench.load import UNLIMITED
from bench.machine import heading
from export.bundle import open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.session import CPU, Device
from intents.build import Options, Reporter, build_index
from intents.formats import load_faq
from intents.normalise import normalise
from server.app import Server
from server.cores import usable_cores
from server.engine import Engine, load_engine
from server.logs import configure_logs
from server.process import settle
from server.serving import Serving, local_date
from server.settings import Settings, read_settings
from server.telemetry import Metrics

# Far enough that no message is ever late: what is measured is what can be done, not what is promised.
FAR = 1000.0
IDLE = 400


@dataclass(frozen=True)
class Arrangement:
    """A bare loop: so many sessions of so many threads each, in batches of this size."""

    encoder: BiEncoder
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.encoder.sessions} sessions of {self.threads}, batches of {self.batch}"


def bare_loop(how: Arrangement, engine: Engine, texts: Sequence[str], in_flight: int) -> float:
    """Messages a second of the bare loop."""
    windows = iter(_windows(texts, in_flight // how.encoder.sessions))
    taking = threading.Lock()

    def work(session: int) -> None:
        while True:
            with taking:
                window = next(windows, None)
            if window is None:
                return
            tokens = sorted((how.encoder.tokenize(text) for text in window), key=len)
            for start in range(0, len(tokens), how.batch):
                engine.search.retrieve(how.encoder.run(tokens[start : start + how.batch], session))

    return _rate(len(texts), lambda: _in_threads(how.encoder.sessions, work))


def _windows(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _rate(count: int, run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return count / (time.perf_counter() - started)


@contextmanager
def serving(engine: Engine, settings: Settings) -> Iterator[tuple[asyncio.Runner, Serving]]:
    """The engine under way on a loop of its own."""
    with asyncio.Runner() as runner:

        async def start() -> Serving:
            return Serving(engine, settings, Metrics(CollectorRegistry()))

        running = runner.run(start())
        yield runner, running
        runner.run(running.close())


def through_pipeline(engine: Engine, settings: Settings, texts: Sequence[str], in_flight: int) -> float:
    """Messages a second of the pipeline in process."""
    with serving(engine, settings) as (runner, running):

        async def ask() -> None:
            clock, remaining = asyncio.get_running_loop().time, iter(texts)

            async def one() -> None:
                for text in remaining:
                    await running.pipeline.resolve(text, clock() + FAR)

            await asyncio.gather(*(one() for _ in range(in_flight)))

        return _rate(len(texts), lambda: runner.run(ask()))


def through_socket(engine: Engine, settings: Settings, messages: Path, in_flight: int) -> float:
    """Messages a second through the socket, the load client being another process."""

    async def run() -> bytes:
        server = Server(engine, settings)
        await server.start()
        try:
            # fmt: off
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.load", server.url, "--messages", str(messages),
                "--in-flight", str(in_flight), "--budget-ms", "10000", stdout=asyncio.subprocess.PIPE,
            )
            # fmt: on
            return (await client.communicate())[0]
        finally:
            await server.stop()

    figures = json.loads(asyncio.run(run()))
    if figures["inside_budget"] < 1:
        sys.exit(f"the server did not answer everything: {figures}")
    return float(figures["rate"])


def idle(engine: Engine, settings: Settings, texts: Sequence[str]) -> tuple[float, float]:
    """Median milliseconds of one message through the pipeline, and bare."""
    through, bare = [], []
    with serving(engine, settings) as (runner, running):

        async def ask(text: str) -> float:
            started = time.perf_counter()
            await running.pipeline.resolve(text, asyncio.get_running_loop().time() + FAR)
            return time.perf_counter() - started

        for text in texts:
            through.append(runner.run(ask(text)))
            started = time.perf_counter()
            engine.search.retrieve(engine.encoder.run([engine.encoder.tokenize(text)]))
            bare.append(time.perf_counter() - started)
    return 1000 * statistics.median(through), 1000 * statistics.median(bare)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    configure_logs("warning", "console")
    bundle = open_bundle(options.model, kind="bi-encoder")
    with tempfile.TemporaryDirectory(prefix="faqwire-engine-") as aside:
        index = Path(aside) / "index"
        faq = load_faq(options.data / "train.csv").faq
        building = BiEncoder(bundle, "fp32", Device(CPU), threads=usable_cores())
        build_index(faq, building, index, Options(), now=datetime.now(UTC), reporter=Reporter())
        settings = read_settings(
            model=options.model,
            index=index,
            port=0,
            metrics_port="off",
            cache_size=0,
            max_in_flight=options.in_flight,
            messages_per_second=UNLIMITED,
            message_burst=UNLIMITED,
        )
        engine = load_engine(settings)
        settle()  # as `faqwire serve` does
        with (options.data / "test.csv").open(encoding="utf-8", newline="") as file:
            every = [row["text"] for row in csv.DictReader(file)]
        # What equals a phrasing needs no model.
        texts = [text for text in every if engine.index.entry_of(normalise(text), local_date()) is None]
        messages = Path(aside) / "messages.csv"
        with messages.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text"], *([text] for text in texts)])
        cores = usable_cores()
        whole = BiEncoder(bundle, engine.encoder.variant, engine.encoder.device, sessions=1, threads=cores)
        single = BiEncoder(bundle, engine.encoder.variant, engine.encoder.device, sessions=cores)
        arrangements = [Arrangement(single, 1, size) for size in (8, 16, 32)]
        arrangements.append(Arrangement(engine.encoder, 1, 8))
        arrangements += [Arrangement(whole, cores, size) for size in (16, 32)]
        rates: dict[str, list[float]] = {}
        ratios: dict[str, list[float]] = {"pipeline": [], "socket": []}
        for _ in track(range(options.rounds), description="measuring"):
            bare = {str(how): bare_loop(how, engine, texts, options.in_flight) for how in arrangements}
            best = max(bare.values())
            found = {
                "pipeline": through_pipeline(engine, settings, texts, options.in_flight),
                "socket": through_socket(engine, settings, messages, options.in_flight),
            }
            for name, rate in {**bare, **found}.items():
                rates.setdefault(name, []).append(rate)
            for name, rate in found.items():
                ratios[name].append(rate / best)
        idles = [idle(engine, settings, texts[:IDLE]) for _ in range(options.rounds)]
        variant = f"{engine.encoder.variant} on {engine.encoder.device.provider}"
    print(heading(f"python -m bench.engine --data banking77 --rounds {options.rounds}"))
    print(f"- model: {bundle.manifest.source.model}, {variant}; {options.in_flight} messages in flight\n")
    print("| what | messages a second, median | of the best bare loop, median (least to most) |\n|---|---|---|")
    for name, seen in rates.items():
        ratio = ratios.get(name)
        share = f"{statistics.median(ratio):.3f} ({min(ratio):.3f} to {max(ratio):.3f})" if ratio else ""
        print(f"| {name if ratio else 'bare: ' + name} | {statistics.median(seen):,.0f} | {share} |")
    extra = [through - bare for through, bare in idles]
    print("\n| idle, one message | median ms |\n|---|---|")
    print(f"| pipeline | {statistics.median(t for t, _ in idles):.3f} |")
    print(f"| bare tokenize, run and search | {statistics.median(b for _, b in idles):.3f} |")
    spread = f"{statistics.median(extra):.3f} ({min(extra):.3f} to {max(extra):.3f})"
    print(f"| difference, median of rounds (least to most) | {spread} |")


if __name__ == "__main__":
    main()
