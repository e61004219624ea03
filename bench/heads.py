"""Entry heads against centroids and nearest phrasings: accuracy with all phrasings of an intent, and with a few.

    python -m bench.heads --data PATH/TO/banking77 PATH/TO/clinc150 [--shots 1 2 3 5 10] [--draws 5] [--model var/model]

`--data` are folders with `train.csv` and `test.csv` (columns `text,intent`). Every text is encoded once, in fp32.
Figures are shares of test messages whose intent comes first among those of the 100 nearest train messages (an exact
scan), those of a few phrasings means over seeded draws; intents with fewer keep all they have.

- nearest: by the nearest train message alone
- nearest + centroid: with the intent's centroid, of the same weight
- head: by the intent's head alone, among all intents
- nearest + head: with the head, of four times the weight
- with words: with the head and the shared words, of the weights that a build would choose on held-out train messages;
  last is what was chosen, in every draw. One phrasing an intent leaves nothing to hold out and nothing to choose by: a
  build takes the weights of `intents/prior.py` then, and this the default ones
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from bench.machine import heading
from export.bundle import open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.session import CPU, Device
from intents.candidates import EntryScorer, Weights
from intents.effort import NEIGHBOURS
from intents.heads import Heads, centroids_of
from intents.holdout import hold_out
from intents.items import Item
from intents.search import ExactSearch, Floats, Positions
from intents.weighing import choose_weights
from server.cores import usable_cores

WAYS = ("nearest", "nearest + centroid", "head", "nearest + head", "with words")


@dataclass(frozen=True)
class Data:
    """One data set.

    Attributes:
        name: its folder's.
        train, test: vectors.
        texts, messages: what they are of.
        owners, expected: the intents of either; train messages stand intent by intent.
        intents: how many there are.
    """

    name: str
    train: Floats
    texts: list[str]
    owners: Positions
    test: Floats
    messages: list[str]
    expected: Positions
    intents: int

    def drawn(self, shots: int, seed: int) -> Positions:
        """So many train messages of each intent, by position."""
        chance = np.random.default_rng(seed)
        own = np.split(np.arange(len(self.owners)), np.flatnonzero(np.diff(self.owners)) + 1)
        return np.concatenate([np.sort(chance.permutation(group)[:shots]) for group in own])


@dataclass(frozen=True)
class Row:
    """What came out: an accuracy a way, and the weights."""

    accuracies: tuple[float, ...]
    weights: Weights


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with train.csv and test.csv")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder")
    parser.add_argument("--shots", type=int, nargs="*", default=[1, 2, 3, 5, 10], help="phrasings an intent")
    parser.add_argument("--draws", type=int, default=5, help="how many draws of each")
    options = parser.parse_args()
    encoder = BiEncoder(open_bundle(options.model, kind="bi-encoder"), "fp32", Device(CPU), threads=usable_cores())
    sets = [_read(folder, encoder) for folder in options.data]
    runs = [(data, shots) for data in sets for shots in (*options.shots, None)]
    rows = [list(_run(data, shots, options.draws)) for data, shots in track(runs, "fitting", transient=True)]
    names = {str(folder): folder.name for folder in options.data}
    print(heading(" ".join(["python -m bench.heads", *(names.get(word, word) for word in sys.argv[1:])])))
    print(f"| data | phrasings an intent | {' | '.join(WAYS)} | weights |")
    print("|---" * (3 + len(WAYS)) + "|")
    for (data, shots), found in zip(runs, rows, strict=True):
        means = [statistics.mean(column) for column in zip(*(row.accuracies for row in found), strict=True)]
        weights = ", ".join(f"{row.weights.head:g} and {row.weights.lexical:g}" for row in found)
        print(f"| {data.name} | {shots or 'all'} | {' | '.join(f'{mean:.4f}' for mean in means)} | {weights} |")


def _read(folder: Path, encoder: BiEncoder) -> Data:
    def columns(name: str) -> tuple[list[str], list[str]]:
        with (folder / name).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [row["text"] for row in rows], [row["intent"] for row in rows]

    (train, labels), (test, wanted) = columns("train.csv"), columns("test.csv")
    intents = {label: number for number, label in enumerate(sorted(set(labels)))}
    owners = np.array([intents[label] for label in labels], dtype=np.int64)
    order = np.argsort(owners, kind="stable")
    expected = np.array([intents.get(label, -1) for label in wanted], dtype=np.int64)
    asked = expected >= 0  # messages of no intent cannot come first
    vectors, texts = encoder.encode(train)[order], [train[i] for i in order]
    messages = [test[i] for i in np.flatnonzero(asked)]
    return Data(
        folder.name, vectors, texts, owners[order], encoder.encode(messages), messages, expected[asked], len(intents)
    )


def _run(data: Data, shots: int | None, draws: int) -> Iterator[Row]:
    if shots is None:
        yield _measure(data, np.arange(len(data.owners)))
        return
    for seed in range(draws):
        yield _measure(data, data.drawn(shots, seed))


def _measure(data: Data, chosen: Positions) -> Row:
    vectors, owners = data.train[chosen], data.owners[chosen]
    items = [Item(int(owner), data.texts[place], "phrasing") for place, owner in zip(chosen, owners, strict=True)]
    neighbours = min(NEIGHBOURS, len(items))
    held_out = hold_out(vectors, owners, items, entries=data.intents, neighbours=neighbours)
    weights, heads, lexicon = choose_weights(held_out), held_out.heads, held_out.lexicon
    centroids = Heads(centroids_of(vectors, owners, data.intents), np.zeros(data.intents, dtype=np.float32))
    found = ExactSearch(vectors, neighbours=neighbours).retrieve(data.test)

    def first(scorer: EntryScorer) -> list[int]:
        return [scorer.candidates(text, one)[0].entry for text, one in zip(data.messages, found, strict=True)]

    return Row(
        (
            _share(data, first(EntryScorer(owners, heads, lexicon, Weights()))),
            _share(data, first(EntryScorer(owners, centroids, lexicon, Weights(head=1.0)))),
            _share(data, np.argmax(data.test @ heads.weights.T + heads.biases, axis=1).tolist()),
            _share(data, first(EntryScorer(owners, heads, lexicon, Weights(head=4.0)))),
            _share(data, first(EntryScorer(owners, heads, lexicon, weights))),
        ),
        weights,
    )


def _share(data: Data, found: Sequence[int]) -> float:
    return float(np.mean(np.array(found) == data.expected))


if __name__ == "__main__":
    main()
