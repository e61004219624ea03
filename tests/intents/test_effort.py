"""How hard Annoy searches, chosen by measurement."""

import numpy as np
import pytest

from intents import effort
from intents.candidates import EntryScorer, Weights
from intents.effort import MAX_HELD_OUT, TARGET, _folds, build_trees, plan_search
from intents.heads import Heads, centroids_of
from intents.index import FaqIndex
from intents.items import Item
from intents.lexical import lexicon_of
from intents.search import AnnoySearch, ExactSearch, Floats, Positions
from tests.intents.synthetic import unit


def scorer_of(vectors: Floats, owners: Positions, entries: int) -> EntryScorer:
    """A scorer whose heads are the centroids: what they are does not matter here, and fitting takes a while."""
    heads = Heads(centroids_of(vectors, owners, entries), np.zeros(entries, dtype=np.float32))
    return EntryScorer(owners, heads, lexicon_of([str(i) for i in range(len(owners))]), Weights(head=0.5, lexical=0.5))


def faq(entries: int, phrasings: int, noise: float, dimension: int = 32) -> tuple[Floats, EntryScorer, list[Item]]:
    """A synthetic FAQ: phrasings around their entry's direction, and one answer item each."""
    chance = np.random.default_rng(3)
    owners = np.repeat(np.arange(entries), phrasings + 1)
    centres = chance.normal(size=(entries, dimension))
    vectors = unit(centres[owners] + noise * chance.normal(size=(len(owners), dimension)))
    items = [
        Item(int(entry), f"{i}", "answer" if i % (phrasings + 1) == phrasings else "phrasing")
        for i, entry in enumerate(owners)
    ]
    return vectors, scorer_of(vectors, owners, entries), items


def test_the_plan_agrees_with_the_exact_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """On items that trees find hard, effort is raised until nearly every top entry is the exact scan's."""
    monkeypatch.setattr(effort, "NEIGHBOURS", 10)  # so that it begins low
    vectors, scorer, items = faq(300, 6, 1.5)
    steps: list[str] = []
    plan = plan_search(vectors, scorer, items, steps.append)
    assert plan.agreement >= TARGET
    assert plan.search_k > plan.trees * plan.neighbours
    assert plan.held_out == 300 * 5
    assert 0 < plan.recall_at_10 <= 1
    assert plan.microseconds > 0
    assert len(steps) == 1
    annoy = AnnoySearch(build_trees(vectors, plan.trees), vectors, neighbours=plan.neighbours, search_k=plan.search_k)
    exact = ExactSearch(vectors, neighbours=plan.neighbours)
    messages = unit(vectors[::3] + 0.1 * np.random.default_rng(4).normal(size=vectors[::3].shape))
    tops = [[scorer.candidates("", one)[0].entry for one in search.retrieve(messages)] for search in (annoy, exact)]
    assert np.mean([a == b for a, b in zip(*tops, strict=True)]) >= 0.99


def test_the_shops_plan_agrees(shop_index: FaqIndex) -> None:
    """The sample shop's index records the agreement that is promised, measured on phrasings that were held out."""
    plan = shop_index.manifest.plan
    assert plan.agreement >= TARGET
    assert plan.held_out > 500
    assert plan.search_k >= plan.neighbours


@pytest.mark.parametrize(("entries", "phrasings"), [(1, 1), (1, 2), (2, 1), (3, 2)])
def test_a_tiny_index_has_a_plan(entries: int, phrasings: int) -> None:
    """The smallest FAQs are planned for too; what cannot be measured is searched in full."""
    vectors, scorer, items = faq(entries, phrasings, 0.3)
    plan = plan_search(vectors, scorer, items, lambda _: None)
    assert plan.neighbours == len(items)
    assert plan.held_out == entries * max(1, phrasings - 1)  # a lone question is spared by its answer
    assert plan.agreement == 1


def test_what_cannot_be_measured_is_searched_harder() -> None:
    """Where nothing can be held out, several times Annoy's default effort is taken, and not an endless one."""
    vectors, scorer, items = faq(3000, 1, 0.5)
    lone = [i for i, item in enumerate(items) if item.role == "phrasing"]
    owners = scorer.owners[lone]
    alone = scorer_of(vectors[lone], owners, 3000)
    plan = plan_search(vectors[lone], alone, [items[i] for i in lone], lambda _: None)
    assert plan.held_out == 0
    assert plan.trees * plan.neighbours < plan.search_k < plan.trees * len(lone)


def test_folds_spare_every_entry() -> None:
    """Phrasings are held out once each, in five lots, and every entry keeps its question and its answer in each."""
    _, scorer, items = faq(7, 4, 0.3)
    folds = _folds(scorer.owners, items)
    assert len(folds) == 5
    together = np.concatenate(folds).tolist()
    assert sorted(together) == [i for i in range(len(items)) if i % 5 in {1, 2, 3}]


def test_a_large_index_is_measured_on_a_sample() -> None:
    """Beyond some thousands of phrasings, a thousand are enough to measure on."""
    _, scorer, items = faq(60, 101, 0.3, dimension=2)
    (fold,) = _folds(scorer.owners, items)
    assert len(set(fold.tolist())) == MAX_HELD_OUT


def test_trees_hold_every_vector() -> None:
    """Annoy's items are the vectors, by position."""
    vectors, _, _ = faq(5, 3, 0.5)
    annoy = build_trees(vectors, 2)
    assert annoy.get_n_items() == len(vectors)
    assert annoy.get_n_trees() == 2
    np.testing.assert_allclose(annoy.get_item_vector(7), vectors[7], atol=1e-6)
