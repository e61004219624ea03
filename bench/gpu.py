"""The model on the device that is there: plain and bound runs by shape, agreement with the CPU, the bare loop.

    python -m bench.gpu --data PATH/TO/banking77 [--model var/model] [--provider auto] [--rounds 7]

`--data` is a folder with `test.csv` (columns `text,intent`). It needs no GPU: it measures what `--provider` settles
for, and refuses where that was named and is absent.

- by shape: seconds a batch of full rows, run plainly in this shape and through bound buffers, on the same session,
  interleaved; medians of rounds, after two runs of each
- agreement: cosine of the device's vectors with those of fp32 on the CPU, over the test messages
- bare loop: messages a second, sorted by length in batches of `--rows`, with and without the tokenizer; medians of
  rounds
"""

import argparse
import csv
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import get_args

import numpy as np

from bench.machine import heading
from export.bundle import open_bundle
from export.errors import FaqwireError
from export.runtime.bi_encoder import BiEncoder
from export.runtime.buckets import Buckets
from export.runtime.choices import Provider, VariantChoice
from export.runtime.encoder import Floats, by_length
from export.runtime.runner import Plain, Runner
from export.runtime.session import CPU, Device, choose_variant, find_device
from export.runtime.tokens import Tokens
from server.cores import usable_cores

_LEAST = 0.02  # seconds that are timed at a time: shorter runs are repeated


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with test.csv")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder")
    parser.add_argument("--provider", choices=get_args(Provider), default="auto", help="where to run")
    parser.add_argument("--variant", choices=get_args(VariantChoice), default="auto", help="precision to run")
    parser.add_argument("--rows", type=int, default=32, help="most rows of a batch")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="most tokens of a batch, before padding")
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take medians of")
    try:
        _measure(parser.parse_args())
    except FaqwireError as exc:
        sys.exit(f"bench.gpu: {exc}")


def _measure(options: argparse.Namespace) -> None:
    bundle = open_bundle(options.model, kind="bi-encoder")
    device = find_device(options.provider)
    variant = choose_variant(bundle, device, options.variant)
    encoder = BiEncoder(bundle, variant, device, max_rows=options.rows, fixed_shapes=True)
    with (options.data / "test.csv").open(encoding="utf-8", newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    print(heading("python -m bench.gpu --data banking77 " + " ".join(sys.argv[3:])).rstrip())
    print(f"- device: {variant} on {device.provider}{_gpu(device)}\n")
    bound = encoder.runners[0]
    runners = {"plain": Plain(bound.session), "bound": bound}
    buckets = Buckets.up_to(max_rows=options.rows, max_tokens=bundle.manifest.max_tokens)
    print("| rows | tokens | plain (ms) | bound (ms) | bound / plain |\n|---|---|---|---|---|")
    for rows, tokens in buckets.reached(max_rows=options.rows, max_batch_tokens=options.batch_tokens):
        plainly, boundly = _by_shape(list(runners.values()), rows, tokens, options.rounds)
        ratio = statistics.median(b / a for a, b in zip(plainly, boundly, strict=True))
        medians = " | ".join(f"{statistics.median(seconds) * 1e3:.3f}" for seconds in (plainly, boundly))
        print(f"| {rows} | {tokens} | {medians} | {ratio:.3f} |")
    reference = BiEncoder(bundle, "fp32", Device(CPU), threads=usable_cores()).encode(texts)
    agreement = np.einsum("nd,nd->n", encoder.encode(texts, batch_size=options.rows), reference)
    print(f"\nagreement with fp32 on the CPU: mean {agreement.mean():.5f}, min {agreement.min():.5f}\n")
    print("| runs | messages a second | without the tokenizer |\n|---|---|---|")
    for name, runner in runners.items():
        print(f"| {name} | {' | '.join(_loops(encoder, runner, texts, options))} |")


def _gpu(device: Device) -> str:
    if device.provider == CPU:
        return ""
    query = ["nvidia-smi", f"--id={device.device_id}", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ", a GPU that nvidia-smi does not name"
    return f", {said}"


def _by_shape(runners: Sequence[Runner], rows: int, tokens: int, rounds: int) -> list[list[float]]:
    """Seconds a batch of full rows, for each runner a value a round."""
    random = np.random.default_rng(0)
    batch = [Tokens(random.integers(1000, 2000, tokens), np.zeros(tokens, dtype=np.int64)) for _ in range(rows)]
    for runner in runners:
        runner.run(batch)
    once = _seconds(partial(runners[0].run, batch), 1)
    times = max(1, round(_LEAST / once))
    seconds: list[list[float]] = [[] for _ in runners]
    for turn in range(rounds):
        order = list(enumerate(runners))
        for position, runner in order if turn % 2 == 0 else reversed(order):
            seconds[position].append(_seconds(partial(runner.run, batch), times))
    return seconds


def _seconds(run: Callable[[], Floats], times: int) -> float:
    started = perf_counter()
    for _ in range(times):
        run()
    return (perf_counter() - started) / times


def _loops(encoder: BiEncoder, runner: Runner, texts: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Messages a second with the tokenizer, and without."""
    whole, model = [], []
    for _ in range(options.rounds):
        started = perf_counter()
        tokens = [encoder.tokenize(text) for text in texts]
        tokenized = perf_counter()
        for batch in by_length(tokens, options.rows):
            runner.run([tokens[i] for i in batch])
        ended = perf_counter()
        whole.append(len(texts) / (ended - started))
        model.append(len(texts) / (ended - tokenized))
    return [f"{statistics.median(rates):,.0f}" for rates in (whole, model)]


if __name__ == "__main__":
    main()
