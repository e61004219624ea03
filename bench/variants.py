"""The int8 variant against what ONNX Runtime offers: agreement, independence of the batch, accuracy, speed.

    python -m bench.variants --data PATH/TO/banking77 [--model var/model] [--rounds 7]

`--data` is a folder with `train.csv` and `test.csv` (columns `text,intent`). Forms run interleaved on one thread, each
round in the opposite order of the one before; speeds are medians of the ratio to plain dynamic int8 within a round
(the quicker of its two forms at batches of 16).

- agreement: cosine with fp32, test messages alone
- alone/batch: lowest cosine of a message alone with itself in a batch of 16, over the messages sorted by length and
  twice in random order
- same entry: share of messages whose nearest train message (fp32 vectors) is of the same intent alone and in every one
  of those batches
- accuracy@1: share of test messages whose nearest train message has their intent
"""

import argparse
import csv
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from rich.progress import track

from bench.machine import heading
from export.bundle import Bundle, open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.encoder import Floats
from export.runtime.session import CPU, Device, open_session
from export.runtime.tokens import Tokens, feed

logging.disable(logging.INFO)  # the quantizers log every node, at a level that they set themselves

BATCHES = (1, 16, 32)
_SINGLE = 600  # messages timed one at a time


@dataclass(frozen=True)
class Data:
    """Banking77: tokens of the test messages, fp32 vectors of all, and their intents."""

    tokens: list[Tokens]
    test: Floats
    train: Floats
    test_intents: np.ndarray
    train_intents: np.ndarray

    def nearest(self, vectors: Floats) -> np.ndarray:
        """The intent of the train message nearest to each vector."""
        intents: np.ndarray = self.train_intents[(vectors @ self.train.T).argmax(axis=1)]
        return intents


@dataclass(frozen=True)
class Form:
    """One way to store the model."""

    name: str
    path: Path
    session: Any

    def run(self, batch: Sequence[Tokens]) -> Floats:
        """Vectors of one batch."""
        names = [i.name for i in self.session.get_inputs()]
        vectors: Floats = self.session.run(None, feed(batch, names))[0]
        return vectors

    def encode(self, data: Data, groups: Sequence[np.ndarray]) -> Floats:
        """Vectors of all test messages, run in these groups."""
        vectors = np.empty_like(data.test)
        for group in groups:
            vectors[group] = self.run([data.tokens[i] for i in group])
        return vectors


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder")
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take medians of")
    options = parser.parse_args()
    bundle = open_bundle(options.model, kind="bi-encoder")
    data = _read(options.data, BiEncoder(bundle, "fp32", Device(CPU), threads=2))
    with tempfile.TemporaryDirectory(prefix="faqwire-variants-") as aside:
        forms = _forms(bundle, Path(aside))
        seconds = {size: _time(forms, data, size, options.rounds) for size in BATCHES}
        print(heading("python -m bench.variants --data banking77 " + " ".join(sys.argv[3:])))
        times = " | ".join(f"speed, batches of {size} (µs a message)" for size in BATCHES)
        print(f"| form | MB | agreement, mean | min | alone/batch, min | same entry | accuracy@1 | {times} |")
        print("|---" * (7 + len(BATCHES)) + "|")
        reference = min((0, 1), key=lambda i: statistics.median(seconds[16][i]))
        for position, form in enumerate(forms):
            speeds = " | ".join(_speed(seconds[size], position, reference) for size in BATCHES)
            print(f"| {form.name} | {form.path.stat().st_size / 1e6:.1f} | {_quality(form, data)} | {speeds} |")


def _read(folder: Path, encoder: BiEncoder) -> Data:
    def columns(name: str) -> tuple[list[str], np.ndarray]:
        with (folder / name).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [row["text"] for row in rows], np.array([row["intent"] for row in rows])

    test, test_intents = columns("test.csv")
    train, train_intents = columns("train.csv")
    tokens = [encoder.tokenize(text) for text in test]
    return Data(tokens, encoder.encode(test), encoder.encode(train), test_intents, train_intents)


def _forms(bundle: Bundle, aside: Path) -> list[Form]:
    fp32 = bundle.variant_path("fp32")
    paths = {}
    for name, by_channel in (("dynamic int8, a scale a tensor", False), ("dynamic int8, a scale a column", True)):
        paths[name] = aside / f"dynamic-{by_channel}.onnx"
        quantize_dynamic(fp32, paths[name], weight_type=QuantType.QInt8, per_channel=by_channel)
    for block in (32, 128):
        config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=True, accuracy_level=4, bits=8)
        quantizer = MatMulNBitsQuantizer(onnx.load(fp32), algo_config=config)
        quantizer.process()
        path = aside / f"nbits-{block}.onnx"
        onnx.save(quantizer.model.model, path)
        paths[f"MatMulNBits, 8 bits in blocks of {block}"] = path
    paths["fp32"] = fp32
    paths["**int8, faqwire's**"] = bundle.variant_path("int8")
    return [Form(name, path, open_session(path, Device(CPU), threads=1)) for name, path in paths.items()]


def _by_length(data: Data, size: int, count: int) -> list[np.ndarray]:
    order = np.argsort([len(tokens) for tokens in data.tokens], kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]
    return [chosen[i : i + size] for i in range(0, len(chosen), size)]


def _time(forms: Sequence[Form], data: Data, size: int, rounds: int) -> list[list[float]]:
    """Seconds a message, for each form a value a round."""
    count = _SINGLE if size == 1 else len(data.tokens)
    groups = [[data.tokens[i] for i in group] for group in _by_length(data, size, count)]
    messages = sum(map(len, groups))
    seconds: list[list[float]] = [[] for _ in forms]
    for form in forms:
        for group in groups[::4]:
            form.run(group)
    for turn in track(range(rounds), f"batches of {size}", transient=True):
        order = list(enumerate(forms))
        for position, form in order if turn % 2 == 0 else reversed(order):
            started = time.perf_counter()
            for group in groups:
                form.run(group)
            seconds[position].append((time.perf_counter() - started) / messages)
    return seconds


def _speed(seconds: list[list[float]], position: int, reference: int) -> str:
    ratio = statistics.median(a / b for a, b in zip(seconds[reference], seconds[position], strict=True))
    return f"{ratio:.3f} ({statistics.median(seconds[position]) * 1e6:.0f})"


def _quality(form: Form, data: Data) -> str:
    count = len(data.tokens)
    shuffler = np.random.default_rng(0)
    alone = form.encode(data, [np.array([i]) for i in range(count)])
    groupings = [_by_length(data, 16, count)]
    groupings += [np.array_split(shuffler.permutation(count), -(-count // 16)) for _ in range(2)]
    batched = [form.encode(data, groups) for groups in groupings]
    cosine = np.einsum("nd,nd->n", alone, data.test)
    together = min(float(np.einsum("nd,nd->n", alone, vectors).min()) for vectors in batched)
    own = data.nearest(alone)
    same = np.logical_and.reduce([data.nearest(vectors) == own for vectors in batched])
    accuracy = float((own == data.test_intents).mean())
    return f"{cosine.mean():.4f} | {cosine.min():.4f} | {together:.6f} | {same.mean():.2%} | {accuracy:.4f}"


if __name__ == "__main__":
    main()
