"""Train a small cross-encoder for benchmarks: the default model with a head, on pairs of one intent data set.

    python -m bench.confirmer --data PATH/TO/banking77 -o var/cross-encoder-source [--steps 750] [--seed 1]
    faqwire export var/cross-encoder-source -o var/cross-encoder

`--data` is a folder with `train.csv` (columns `text,intent`); no other file of it is read. The result is a Hugging Face
folder. It knows this one data set, and is for measuring the cascade, not for serving anybody.

One message in twelve is left out of training and of the phrasings. Every other message is paired with

- its own intent, shown by the nearest of its other phrasings, or by any of them every fourth time: these are right
- three of the six other intents that the bi-encoder finds nearest, shown by their nearest phrasings: these are wrong

and each shipped out-of-scope message that this FAQ does not seem to answer with its three nearest intents, all wrong.
The word embeddings stay as they are. Five times, at the end too, 200 of the left-out messages are read with their five
nearest intents; printed are the loss since the last time, the AUROC of right pairs among all, and the accuracy of the
highest logit beside that of the bi-encoder on the same candidates.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from export.bundle import open_bundle
from export.runtime.bi_encoder import BiEncoder
from export.runtime.session import CPU, Device
from export.source import find_source
from intents.build import SHIPPED_OUT_OF_SCOPE
from intents.candidates import nearest_of_each
from intents.entries import Entry
from intents.formats import load_faq
from intents.items import Item, answer_of, items_of, rendered
from intents.labelled import read_out_of_scope
from intents.search import ExactSearch, Floats
from server.engine import usable_cores

LEFT_OUT = 12
NEGATIVES, OF_NEAREST = 3, 6
CANDIDATES, CHECKED = 5, 200


@dataclass(frozen=True)
class Pair:
    """A message, a candidate as text, and whether that answers it."""

    message: str
    candidate: str
    right: bool


class Miner:
    """Finds for a message what it may be confused with, as the bi-encoder sees it."""

    def __init__(self, entries: list[Entry], encoder: BiEncoder) -> None:
        self.entries, self.items = entries, items_of(entries)
        self.vectors = encoder.encode([item.text for item in self.items])
        self._owners = np.array([item.entry for item in self.items])
        self._search = ExactSearch(self.vectors, neighbours=300)

    def nearest(self, vectors: Floats, own: list[str | None]) -> list[list[Item]]:
        """The nearest item of each of the nearest entries, nearest first, but for the messages' own items."""
        found = []
        for retrieved, text in zip(self._search.retrieve(vectors), own, strict=True):
            positions = np.array([p for p in retrieved.positions if self.items[p].text != text])
            _, first = nearest_of_each(self._owners[positions])
            found.append([self.items[positions[place]] for place in sorted(first)])
        return found

    def show(self, item: Item, message: str) -> str:
        """The item's entry as text for the cross-encoder, without the message."""
        entry = self.entries[item.entry]
        return rendered(entry, item.text if item.role == "phrasing" else None, answer_of(entry), without=message)


def main() -> None:
    """Mine pairs, train, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the Hugging Face folder to write")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder that mines")
    parser.add_argument("--steps", type=int, default=750, help="batches of 32 pairs")
    parser.add_argument("--rate", type=float, default=1e-4, help="highest learning rate")
    parser.add_argument("--pair-tokens", type=int, default=96, help="most tokens of a pair")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    chance = np.random.default_rng(options.seed)
    whole = load_faq(options.data / "train.csv").faq.entries
    entries, left_out = _split(list(whole), chance)
    encoder = BiEncoder(open_bundle(options.model, kind="bi-encoder"), "fp32", Device(CPU), threads=usable_cores())
    console.print(f"mining pairs of {len(entries)} intents")
    miner = Miner(entries, encoder)
    pairs = _mine(miner, encoder, chance)
    ours = miner.nearest(encoder.encode([message for message, _ in left_out]), [None] * len(left_out))
    check = [
        [Pair(message, miner.show(item, message), item.entry == entry) for item in items[:CANDIDATES]]
        for (message, entry), items in zip(left_out, ours, strict=True)
    ]
    console.print(f"{len(pairs):,} pairs, {statistics.mean(p.right for p in pairs):.1%} of them right")
    _train(pairs, check, options, console)


def _split(entries: list[Entry], chance: np.random.Generator) -> tuple[list[Entry], list[tuple[str, int]]]:
    """The entries without some of their phrasings, and these with their entries' positions."""
    kept, left_out = [], []
    for position, entry in enumerate(entries):
        away = chance.random(len(entry.phrasings)) < 1 / LEFT_OUT
        left_out += [(text, position) for text, out in zip(entry.phrasings, away, strict=True) if out]
        own = tuple(text for text, out in zip(entry.phrasings, away, strict=True) if not out)
        kept.append(msgspec.structs.replace(entry, phrasings=own))
    return kept, [left_out[i] for i in chance.permutation(len(left_out))[:CHECKED]]


def _mine(miner: Miner, encoder: BiEncoder, chance: np.random.Generator) -> list[Pair]:
    pairs = []
    asked = [i for i, item in enumerate(miner.items) if item.role == "phrasing"]
    found = miner.nearest(miner.vectors[asked], [miner.items[i].text for i in asked])
    for message, items in zip((miner.items[i] for i in asked), found, strict=True):
        others = [i for i in asked if miner.items[i].entry == message.entry and miner.items[i].text != message.text]
        best = next((item for item in items if item.entry == message.entry), None)
        if best is None or chance.random() < 1 / 4:
            best = miner.items[chance.choice(others)]
        wrong = [item for item in items if item.entry != message.entry][:OF_NEAREST]
        shown = [best, *(wrong[i] for i in chance.permutation(len(wrong))[:NEGATIVES])]
        pairs += [Pair(message.text, miner.show(i, message.text), i.entry == message.entry) for i in shown]
    shipped = read_out_of_scope(SHIPPED_OUT_OF_SCOPE)
    vectors = encoder.encode(shipped)
    # As in calibration: what is as near as the FAQ's own messages are to each other may well be answered by it.
    limit = np.median([np.sort(row)[-2] for row in miner.vectors[::10] @ miner.vectors.T])
    nearest = miner.nearest(vectors, [None] * len(shipped))
    for text, row, items in zip(shipped, vectors @ miner.vectors.T, nearest, strict=True):
        if row.max() < limit:
            pairs += [Pair(text, miner.show(item, text), right=False) for item in items[:NEGATIVES]]
    return pairs


def _train(pairs: list[Pair], check: list[list[Pair]], options: Any, console: Console) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup, logging

    logging.set_verbosity_error()  # that the head is not trained yet is no news here
    torch.manual_seed(options.seed)
    torch.set_num_threads(usable_cores())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = str(find_source().folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).to(device)
    model.base_model.embeddings.requires_grad_(requires_grad=False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.rate, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, options.steps // 10, options.steps)

    def logits_of(batch: list[Pair]) -> Any:
        texts = ([pair.message for pair in batch], [pair.candidate for pair in batch])
        inputs = tokenizer(*texts, padding=True, truncation=True, max_length=options.pair_tokens, return_tensors="pt")
        return model(**inputs.to(device)).logits[:, 0]

    def report(step: int, losses: list[float], seconds: float) -> None:
        model.eval()
        with torch.inference_mode():
            scored = [logits_of(found).cpu().numpy() for found in check]
        model.train()
        loss = statistics.mean(losses)
        console.print(f"step {step}: {seconds:.0f} s, loss {loss:.4f}; left-out messages: {_figures(check, scored)}")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    losses: list[float] = []
    started = time.perf_counter()
    model.train()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("training", total=options.steps)
        for step, batch in enumerate(_batches(pairs, options.steps, options.seed), start=1):
            right = torch.tensor([float(pair.right) for pair in batch], device=device)
            loss: Any = torch.nn.functional.binary_cross_entropy_with_logits(logits_of(batch), right)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            progress.update(task, advance=1, description=f"loss {statistics.mean(losses[-20:]):.3f}")
            if step % max(1, options.steps // 5) == 0 or step == options.steps:
                report(step, losses, time.perf_counter() - started)
                losses.clear()
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    console.print(f"saved in {options.output}")


def _batches(pairs: list[Pair], steps: int, seed: int, size: int = 32) -> Iterator[list[Pair]]:
    """So many batches, in random order, each of pairs alike in length."""
    chance = np.random.default_rng(seed)
    while steps > 0:
        order = chance.permutation(len(pairs))
        for start in range(0, len(order) - size, size * 50):
            pool = sorted(order[start : start + size * 50], key=lambda i: len(pairs[i].message + pairs[i].candidate))
            groups = [pool[i : i + size] for i in range(0, len(pool), size)]
            for group in chance.permutation(len(groups))[:steps]:
                yield [pairs[i] for i in groups[group]]
            steps -= min(steps, len(groups))


def _figures(check: list[list[Pair]], scored: list[Floats]) -> str:
    from sklearn.metrics import roc_auc_score

    right = [[pair.right for pair in found] for found in check]
    auroc = roc_auc_score(np.concatenate(right), np.concatenate(scored))
    own = statistics.mean(flags[int(np.argmax(logits))] for flags, logits in zip(right, scored, strict=True))
    alone = statistics.mean(flags[0] for flags in right)
    return f"AUROC of pairs {auroc:.4f}, accuracy by logit {own:.4f} (bi-encoder {alone:.4f})"


if __name__ == "__main__":
    main()
