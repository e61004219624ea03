"""Annoy's trees and the exact scan: the same scores, in the same order."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.runtime.bi_encoder import BiEncoder
from intents.effort import build_trees
from intents.index import FaqIndex
from intents.search import AnnoySearch, ExactSearch, Floats, _best_first
from tests.intents.synthetic import unit

MESSAGES = ("where is my parcel", "can i pay later", "hello", "what is the capital of peru", "asdf")


def random_units(count: int, dimension: int = 8, seed: int = 1) -> Floats:
    """(count, dimension) unit vectors in all directions."""
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)))


def test_scores_are_those_of_the_exact_scan(shop_index: FaqIndex, encoder: BiEncoder) -> None:
    """Annoy only chooses the items: what it finds has the exact scan's scores, best first."""
    annoy, exact = shop_index.search("annoy"), shop_index.search("exact")
    vectors = encoder.encode(MESSAGES)
    for near, truth in zip(annoy.retrieve(vectors), exact.retrieve(vectors), strict=True):
        scores = dict(zip(truth.positions.tolist(), truth.scores.tolist(), strict=True))
        positions, found = near.positions, near.scores
        assert len(positions) == shop_index.manifest.plan.neighbours
        assert np.all(np.diff(found) <= 0)
        known = [(p, s) for p, s in zip(positions.tolist(), found.tolist(), strict=True) if p in scores]
        assert len(known) > len(positions) / 2
        assert [scores[p] for p, _ in known] == pytest.approx([s for _, s in known], abs=1e-6)


def test_an_exhaustive_search_is_the_exact_scan() -> None:
    """With every node inspected, Annoy's answer is the exact scan's, item by item."""
    vectors = random_units(300)
    annoy = AnnoySearch(build_trees(vectors, 4), vectors, neighbours=20, search_k=4 * 300)
    exact = ExactSearch(vectors, neighbours=20)
    messages = random_units(20, seed=2)
    for found, truth in zip(annoy.retrieve(messages), exact.retrieve(messages), strict=True):
        assert found.positions.tolist() == truth.positions.tolist()
        np.testing.assert_allclose(found.scores, truth.scores, atol=1e-6)


def test_a_scan_in_blocks_is_one_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many messages a scan holds at a time changes nothing that it finds."""
    vectors, messages = random_units(50), random_units(7, seed=4)
    whole = ExactSearch(vectors, neighbours=5).retrieve(messages)
    monkeypatch.setattr("intents.search.SCAN_CELLS", 100)
    blocks = ExactSearch(vectors, neighbours=5).retrieve(messages)
    assert [found.positions.tolist() for found in blocks] == [found.positions.tolist() for found in whole]
    assert [found.vector.tolist() for found in blocks] == messages.tolist()


def test_the_exact_scan_finds_the_largest_products() -> None:
    """The exact scan gives the items with the largest dot products, and their values."""
    vectors, messages = random_units(50), random_units(1, seed=3)
    (found,) = ExactSearch(vectors, neighbours=5).retrieve(messages)
    products = [float(vector @ messages[0]) for vector in vectors]
    assert found.positions.tolist() == sorted(range(50), key=lambda i: -products[i])[:5]
    assert found.scores.tolist() == pytest.approx(sorted(products, reverse=True)[:5], abs=1e-6)


@pytest.mark.parametrize("items", [1, 3, 10])
def test_fewer_items_than_neighbours(items: int) -> None:
    """A small index gives all of its items, from either search."""
    vectors = random_units(items)
    annoy = AnnoySearch(build_trees(vectors, 2), vectors, neighbours=10, search_k=1000)
    exact = ExactSearch(vectors, neighbours=10)
    for found in (*annoy.retrieve(vectors[:1]), *exact.retrieve(vectors[:1])):
        assert sorted(found.positions.tolist()) == list(range(items))
        assert found.positions[0] == 0
        assert float(found.scores[0]) == pytest.approx(1.0, abs=1e-6)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=30), st.data())
def test_best_first_breaks_ties_by_position(values: Sequence[float], data: st.DataObject) -> None:
    """Scores fall, and equal ones stand by position, in whatever order they came in."""
    order = data.draw(st.permutations(range(len(values))))
    scores = np.array([values[i] for i in order], dtype=np.float32)
    found = _best_first(random_units(1)[0], np.array(order, dtype=np.int64), scores)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert found.positions.tolist() == expected
    assert found.scores.tolist() == [values[i] for i in expected]
