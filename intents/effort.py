"""How many trees, and how hard to search them: measured on held-out phrasings, not guessed.

A trial index is built without some phrasings, and they are searched in it as messages. The least effort whose top
entry is the exact scan's for 99.8 % of them is taken: above the 99.5 % that is promised, for the sample is finite.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from annoy import AnnoyIndex

from intents.candidates import EntryScorer
from intents.heads import fit_heads
from intents.items import Item
from intents.lexical import lexicon_of
from intents.manifest import SearchPlan
from intents.search import AnnoySearch, ExactSearch, Floats, Positions, Retrieved

NEIGHBOURS = 100
MAX_LIMITED = 1000
UNMEASURED = 8  # times Annoy's own default effort, where there is nothing to measure with
TARGET = 0.998
MAX_HELD_OUT = 1000
SEED = 20261123

Report = Callable[[str], None]


def build_trees(vectors: Floats, trees: int) -> Any:
    """An `AnnoyIndex` (angular) over all vectors, built on all cores."""
    annoy = AnnoyIndex(vectors.shape[1], "angular")
    annoy.set_seed(SEED)
    for position, vector in enumerate(vectors):
        annoy.add_item(position, vector.tolist())
    annoy.build(trees, n_jobs=-1)
    return annoy


@dataclass(frozen=True)
class _Trial:
    """An index without some phrasings, and what an exact scan of it says of them."""

    annoy: Any
    vectors: Floats
    scorer: EntryScorer
    texts: list[str]
    messages: Floats
    truth: list[Retrieved]
    tops: list[int]


def plan_search(
    vectors: Floats, scorer: EntryScorer, items: list[Item], report: Report, *, limited: int = 0
) -> SearchPlan:
    """Choose Annoy's parameters for an index.

    Args:
        vectors: (items, dimension) float32, unit length.
        scorer: the index's own.
        items: what the vectors are of.
        report: told what is being done.
        limited: items of entries that are valid only at times. They stay in the index and are passed over on other
            days, so that many more are retrieved: they must not crowd out those that are valid.
    """
    trees = 32 if len(items) <= 200_000 else 64
    neighbours = min(NEIGHBOURS + min(limited, MAX_LIMITED), len(items))
    folds = _folds(scorer.owners, items)
    count = sum(map(len, folds))
    report(f"trying Annoy on {count:,} held-out phrasings")
    trials = [_trial(vectors, scorer, items, fold, trees, neighbours) for fold in folds]
    search_k = trees * neighbours  # Annoy's own default is where the search for less misses begins
    # Looking at every leaf of every tree is exact, and for a large index too slow to be the answer to not knowing.
    most = trees * len(items) if count else min(trees * len(items), UNMEASURED * search_k)
    while True:
        agreement, recall, seconds = _measure(trials, neighbours, search_k) if count else (1.0, 1.0, 0.0)
        if search_k >= most or (count and agreement >= TARGET):
            return SearchPlan(
                trees=trees,
                search_k=search_k,
                neighbours=neighbours,
                held_out=count,
                agreement=agreement,
                recall_at_10=recall,
                microseconds=seconds * 1e6,
            )
        search_k = min(2 * search_k, most)


def _folds(owners: Positions, items: list[Item]) -> list[Positions]:
    """Phrasings to hold out together; each entry keeps at least one item in every fold.

    A large index spares a thousand at once. Of a small one a fifth is held out at a time, until all have been.
    """
    phrasings = np.array([i for i, item in enumerate(items) if item.role == "phrasing"], dtype=np.int64)
    _, first = np.unique(owners[phrasings], return_index=True)
    spare = np.delete(phrasings, first)
    if not len(spare):
        # No entry has a second phrasing; one that is joined with its answer can still spare its question.
        answered = {item.entry for item in items if item.role == "answer"}
        spare = np.array([i for i in phrasings if items[i].entry in answered], dtype=np.int64)
    spare = np.random.default_rng(SEED).permutation(spare)
    if len(spare) > 5 * MAX_HELD_OUT:
        return [np.sort(spare[:MAX_HELD_OUT])]
    return [np.sort(fold) for fold in np.array_split(spare, 5) if len(fold)]


def _trial(
    vectors: Floats, scorer: EntryScorer, items: list[Item], fold: Positions, trees: int, neighbours: int
) -> _Trial:
    kept = np.setdiff1d(np.arange(len(vectors)), fold)
    rest, messages, texts = vectors[kept], vectors[fold], [items[i].text for i in fold]
    # Heads that know what is asked would be too sure of it, and few neighbours would do.
    heads = fit_heads(rest, scorer.owners[kept], len(scorer.heads.biases)) if scorer.weights.head else scorer.heads
    own = EntryScorer(scorer.owners[kept], heads, lexicon_of([items[i].text for i in kept]), scorer.weights)
    exact = ExactSearch(rest, neighbours=neighbours)
    truth = exact.retrieve(messages)
    tops = [own.candidates(text, found)[0].entry for text, found in zip(texts, truth, strict=True)]
    return _Trial(build_trees(rest, trees), rest, own, texts, messages, truth, tops)


def _measure(trials: list[_Trial], neighbours: int, search_k: int) -> tuple[float, float, float]:
    """Share of right top entries, recall@10, and the median time of a search in seconds."""
    agreeing, recalled, possible, times = 0, 0, 0, []
    for trial in trials:
        search = AnnoySearch(trial.annoy, trial.vectors, neighbours=neighbours, search_k=search_k)
        asked = zip(trial.texts, trial.messages, trial.truth, trial.tops, strict=True)
        for text, message, exact, top in asked:
            started = time.perf_counter()
            found = search.retrieve(message[None])[0]
            times.append(time.perf_counter() - started)
            agreeing += trial.scorer.candidates(text, found)[0].entry == top
            recalled += len(np.intersect1d(found.positions, exact.positions[:10]))
            possible += len(exact.positions[:10])
    return agreeing / len(times), recalled / possible, float(np.median(times))
