"""Annoy's trees and the exact scan: the same scores, in the same order."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.runtime.bi_encoder import BiEncoder
from intents.candidates import unit
from intents.effort import build_trees
from intents.index import FaqIndex
from intents.search import AnnoySearch, ExactSearch, Floats, _best_first

MESSAGES = ("where is my parcel", "can i pay later", "hello", "what is the capital of peru", "asdf")


def random_units(count: int, dimension: int = 8, seed: int = 1) -> Floats:
    """(count, dimension) unit vectors in all directions."""
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)))


def test_scores_are_those_of_the_exact_scan(shop_index: FaqIndex, encoder: BiEncoder) -> None:
    """Annoy only chooses the items: what it finds has the exact scan's scores, best first."""
    annoy, exact = shop_index.search("annoy"), shop_index.search("exact")
    for vector in encoder.encode(MESSAGES):
        scores = dict(zip(*(found.tolist() for found in exact.nearest(vector)), strict=True))
        positions, found = annoy.nearest(vector)
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
    for message in random_units(20, seed=2):
        (found, scores), (expected, truth) = annoy.nearest(message), exact.nearest(message)
        assert found.tolist() == expected.tolist()
        np.testing.assert_allclose(scores, truth, atol=1e-6)


def test_the_exact_scan_finds_the_largest_products() -> None:
    """The exact scan gives the items with the largest dot products, and their values."""
    vectors, message = random_units(50), random_units(1, seed=3)[0]
    positions, scores = ExactSearch(vectors, neighbours=5).nearest(message)
    products = [float(vector @ message) for vector in vectors]
    assert positions.tolist() == sorted(range(50), key=lambda i: -products[i])[:5]
    assert scores.tolist() == pytest.approx(sorted(products, reverse=True)[:5], abs=1e-6)


@pytest.mark.parametrize("items", [1, 3, 10])
def test_fewer_items_than_neighbours(items: int) -> None:
    """A small index gives all of its items, from either search."""
    vectors = random_units(items)
    message = vectors[0]
    annoy = AnnoySearch(build_trees(vectors, 2), vectors, neighbours=10, search_k=1000)
    for search in (annoy, ExactSearch(vectors, neighbours=10)):
        positions, scores = search.nearest(message)
        assert sorted(positions.tolist()) == list(range(items))
        assert positions[0] == 0
        assert float(scores[0]) == pytest.approx(1.0, abs=1e-6)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=30), st.data())
def test_best_first_breaks_ties_by_position(values: Sequence[float], data: st.DataObject) -> None:
    """Scores fall, equal ones stand by position, in whatever order they came in; at most `count` are left."""
    order = data.draw(st.permutations(range(len(values))))
    count = data.draw(st.integers(min_value=1, max_value=len(values) + 2))
    scores = np.array([values[i] for i in order], dtype=np.float32)
    positions, found = _best_first(np.array(order, dtype=np.int64), scores, count)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert positions.tolist() == expected
    assert found.tolist() == [values[i] for i in expected]
