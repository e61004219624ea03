"""What it costs to confirm a message, on an idle server.

    python -m bench.confirming --cross-encoder var/cross-encoder [--index var/index] [--messages shop_messages.csv]

The index has to have been built with the cross-encoder. Every message that does not equal a phrasing is confirmed
with all the candidates that the index allows, one message at a time, through the pipeline: the figure is the stage
`confirm`, from the moment that its pairs leave for the lanes until the last one is read. Then the pairs of some
messages are read alone and among others: a logit must not depend on its batch.
"""

import argparse
import asyncio
import csv
import dataclasses
from pathlib import Path

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from bench.machine import heading
from server.engine import Engine, load_engine
from server.process import settle
from server.serving import Serving
from server.settings import read_settings
from server.telemetry import Metrics

FAR = 60.0
COMPARED = 40


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cross-encoder", type=Path, required=True, help="bundle of the cross-encoder")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder")
    parser.add_argument("--index", type=Path, default=Path("var/index"), help="index built with both")
    parser.add_argument("--messages", type=Path, default=Path("intents/samples/shop_messages.csv"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    settings = read_settings(
        model=options.model, cross_encoder=options.cross_encoder, index=options.index, cache_size=0, metrics_port=0
    )
    engine = _always_confirming(load_engine(settings))
    settle()
    with options.messages.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]

    async def run() -> tuple[list[float], list[int]]:
        serving = Serving(engine, settings, Metrics(CollectorRegistry()))
        clock, milliseconds, read = asyncio.get_running_loop().time, [], []
        for _ in range(options.rounds):
            for text in texts:
                resolved = await serving.pipeline.resolve(text, clock() + FAR)
                if "confirm" in resolved.stages:
                    milliseconds.append(1000 * resolved.stages["confirm"])
                    read.append(resolved.outcome.scored)
        await serving.close()
        return milliseconds, read

    milliseconds, read = asyncio.run(run())
    cross_encoder = engine.cross_encoder
    if cross_encoder is None:
        raise SystemExit("there is no cross-encoder")
    print(heading("python -m bench.confirming " + f"--cross-encoder {options.cross_encoder} --index {options.index}"))
    print(f"{cross_encoder.variant}, {cross_encoder.sessions} sessions, pairs of {cross_encoder.max_tokens} tokens\n")
    print("| messages | candidates | median ms | p90 | p99 |\n|---|---|---|---|---|")
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    print(f"| {len(milliseconds):,} | {np.mean(read):.2f} | {p50:.2f} | {p90:.2f} | {p99:.2f} |")
    print(f"\nA logit alone and among {COMPARED} others differs by at most {_dependence(engine, texts):.2g}.")


def _always_confirming(engine: Engine) -> Engine:
    """The engine with an index that has every message confirmed."""
    manifest = engine.index.manifest
    if manifest.confirmer is None:
        raise SystemExit("the index was built without a cross-encoder")
    confirmer = msgspec.structs.replace(manifest.confirmer, confirm_from=0.0, confirm_to=1.0)
    index = dataclasses.replace(engine.index, manifest=msgspec.structs.replace(manifest, confirmer=confirmer))
    return dataclasses.replace(engine, index=index)


def _dependence(engine: Engine, texts: list[str]) -> float:
    """The largest difference between a pair's logit alone and in a batch."""
    cross_encoder = engine.cross_encoder
    if cross_encoder is None:
        raise SystemExit("there is no cross-encoder")
    vectors = engine.encoder.encode(texts[:COMPARED])
    pairs = [
        cross_encoder.tokenize(text, engine.index.rendered(engine.index.scorer.candidates(text, found)[0]))
        for text, found in zip(texts, engine.search.retrieve(vectors), strict=False)
    ]
    together = cross_encoder.run(pairs)
    alone = np.concatenate([cross_encoder.run([pair]) for pair in pairs])
    return float(np.abs(together - alone).max())


if __name__ == "__main__":
    main()
