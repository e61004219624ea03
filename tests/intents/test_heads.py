"""Heads: drawn to the centroids, and telling entries apart where there is something to tell them by."""

import numpy as np
import pytest

from intents import heads
from intents.heads import Doubles, Heads, _Problem, _SparseProblem, centroids_of, fit_heads
from intents.search import Floats, Positions
from tests.intents.synthetic import unit

ENTRIES, DIMENSION = 12, 24


def clusters(items: int, seed: int = 1, entries: int = ENTRIES) -> tuple[Floats, Positions]:
    """Items of entries that overlap: every two are neighbours, and items are spread along a few directions.

    So a mean misleads: along these directions items of one entry are as far apart as entries are.
    """
    fixed, chance = np.random.default_rng(0), np.random.default_rng(seed)
    subjects = fixed.normal(size=(entries, DIMENSION))
    centres = subjects[np.arange(entries) // 2] + 0.6 * subjects
    spread = fixed.normal(size=(4, DIMENSION))
    owners = np.repeat(np.arange(entries), items)
    away = chance.normal(size=(len(owners), 4)) @ spread + 0.5 * chance.normal(size=(len(owners), DIMENSION))
    return unit(centres[owners] + away), owners


def plain(vectors: Floats, owners: Positions, entries: int = ENTRIES) -> Heads:
    """Heads that are the centroids."""
    return Heads(centroids_of(vectors, owners, entries), np.zeros(entries, dtype=np.float32))


def hits(vectors: Floats, owners: Positions, of: Heads) -> int:
    """How many vectors their own entry's head scores highest."""
    return int(np.sum(np.argmax(vectors @ of.weights.T + of.biases, axis=1) == owners))


def flat(of: Heads) -> Doubles:
    """Weights and biases as the problem takes them."""
    return np.concatenate([of.weights.ravel(), of.biases]).astype(np.float64)


def somewhere(vectors: Floats, owners: Positions) -> Doubles:
    """Weights and biases that are neither the centroids nor the best."""
    start = flat(plain(vectors, owners))
    return start + 0.1 * np.random.default_rng(6).normal(size=start.shape)


def make(kind: type[_Problem], items: int = 8) -> tuple[_Problem, Doubles]:
    """A problem, and where to look at it."""
    vectors, owners = clusters(items)
    return kind(vectors, owners, centroids_of(vectors, owners, ENTRIES)), somewhere(vectors, owners)


def test_centroids_are_mean_directions() -> None:
    """A centroid is the direction of the sum of an entry's vectors; an entry without items has none."""
    vectors = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    centroids = centroids_of(vectors, np.array([0, 0, 2]), 3)
    half = 2**-0.5
    np.testing.assert_allclose(centroids, np.array([[half, half], [0, 0], [0, 1]]), atol=1e-6)
    assert centroids.dtype == np.float32


def test_a_head_score_by_hand() -> None:
    """It is the product with the vector and the bias, of the entries that are asked for and in their order."""
    weights = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]], dtype=np.float32)
    ours = Heads(weights, np.array([0.0, -1.0, 0.25], dtype=np.float32))
    scores = ours.of(np.array([0.6, 0.8], dtype=np.float32), np.array([2, 1]))
    assert scores.tolist() == pytest.approx([0.95, 0.6])
    assert scores.dtype == np.float32
    assert ours.of(np.array([0.6, 0.8], dtype=np.float32), np.array([], dtype=np.int64)).tolist() == []


def test_one_phrasing_says_little() -> None:
    """Where every entry has one phrasing, heads stay close to the centroids, and know every phrasing's entry."""
    vectors, owners = clusters(1)
    found = fit_heads(vectors, owners, ENTRIES)
    lengths = np.linalg.norm(found.weights, axis=1)
    assert (np.einsum("ed,ed->e", found.weights, vectors) / lengths).min() > 0.9
    assert np.abs(found.biases).max() < 0.2
    assert hits(vectors, owners, found) == ENTRIES


@pytest.mark.parametrize("items", [1, 2, 4, 16, 64])
def test_heads_are_no_worse_than_centroids(items: int) -> None:
    """Of messages that were not fitted on, heads find at least as many as centroids do."""
    vectors, owners = clusters(items)
    messages, expected = clusters(100, seed=2)
    found = hits(messages, expected, fit_heads(vectors, owners, ENTRIES))
    assert found >= hits(messages, expected, plain(vectors, owners))


def test_heads_learn_what_centroids_cannot() -> None:
    """With many phrasings heads tell entries apart along directions that means mislead along."""
    vectors, owners = clusters(64)
    messages, expected = clusters(100, seed=2)
    found = hits(messages, expected, fit_heads(vectors, owners, ENTRIES))
    assert found > hits(messages, expected, plain(vectors, owners)) + 0.1 * len(messages)


def test_entries_without_items_are_nobodys_rivals() -> None:
    """An entry without items has a head of zeros, and the others' are as if it were not there."""
    vectors, owners = clusters(6)
    gaps = np.delete(np.arange(ENTRIES + 3), [0, 5, ENTRIES + 2])
    found = fit_heads(vectors, gaps[owners], ENTRIES + 3)
    without = fit_heads(vectors, owners, ENTRIES)
    np.testing.assert_array_equal(found.weights[gaps], without.weights)
    np.testing.assert_array_equal(found.biases[gaps], without.biases)
    for entry in (0, 5, ENTRIES + 2):
        assert not found.weights[entry].any()
        assert found.biases[entry] == 0


def test_a_lone_entry_has_its_centroid() -> None:
    """Where there is nothing to be told from, the head is the centroid; where there are no items, it is zeros."""
    vectors, owners = clusters(6)
    own = vectors[owners == 3]
    lone = fit_heads(own, np.full(len(own), 1), 3)
    np.testing.assert_array_equal(lone.weights, centroids_of(own, np.full(len(own), 1), 3))
    assert not lone.biases.any()
    assert not fit_heads(vectors[:0], owners[:0], 3).weights.any()


def test_heads_are_as_small_as_vectors() -> None:
    """Weights and biases are float32, whatever they were fitted in."""
    found = fit_heads(*clusters(4), ENTRIES)
    assert (found.weights.shape, found.biases.shape) == ((ENTRIES, DIMENSION), (ENTRIES,))
    assert found.weights.dtype == found.biases.dtype == np.float32


def test_fitting_again_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to chance, to the last bit: neither with all entries as rivals nor with some."""
    for everyone in (ENTRIES, 6):
        monkeypatch.setattr(heads, "EVERYONE", everyone)
        monkeypatch.setattr(heads, "RIVALS", 4)
        one, other = (fit_heads(*clusters(8), ENTRIES) for _ in range(2))
        np.testing.assert_array_equal(one.weights, other.weights)
        np.testing.assert_array_equal(one.biases, other.biases)


@pytest.mark.parametrize("kind", [_Problem, _SparseProblem])
def test_the_gradient_is_the_losss(monkeypatch: pytest.MonkeyPatch, kind: type[_Problem]) -> None:
    """Along weights, along biases and along itself, the gradient is what the loss rises by."""
    monkeypatch.setattr(heads, "RIVALS", 5)
    monkeypatch.setattr(heads, "STRENGTH", 0.5)  # as much as the items count
    problem, place = make(kind)
    _, gradient = problem.loss(place)
    directions = np.random.default_rng(7).normal(size=(6, len(place)))
    directions[:3, -ENTRIES:] = 0
    directions[3:, :-ENTRIES] = 0
    for direction in (*directions, gradient):
        step = 2e-3 * direction / np.linalg.norm(direction)
        rise = problem.loss(place + step)[0] - problem.loss(place - step)[0]
        assert rise == pytest.approx(2 * float(gradient @ step), abs=4e-3 * 2e-3 * float(np.linalg.norm(gradient)))


def test_all_entries_as_rivals_are_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many rivals as there are entries the sparse problem is the dense one."""
    monkeypatch.setattr(heads, "RIVALS", ENTRIES)
    (dense, place), (sparse, _) = make(_Problem), make(_SparseProblem)
    (one, by_one), (other, by_other) = dense.loss(place), sparse.loss(place)
    assert other == pytest.approx(one, rel=1e-5)
    np.testing.assert_allclose(by_other, by_one, atol=1e-6)


@pytest.mark.parametrize("kind", [_Problem, _SparseProblem])
@pytest.mark.parametrize("cells", [1, 1000])
def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, kind: type[_Problem], cells: int) -> None:
    """However few items are looked at together, even one at a time, loss and gradient are the same."""
    monkeypatch.setattr(heads, "RIVALS", 5)
    whole, place = make(kind)
    monkeypatch.setattr(heads, "_CELLS", cells)
    parts, _ = make(kind)
    assert parts.loss(place)[0] == pytest.approx(whole.loss(place)[0], rel=1e-5)
    np.testing.assert_allclose(parts.loss(place)[1], whole.loss(place)[1], atol=1e-6)


def test_rivals_are_the_nearest_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An item's own entry comes first, and then those whose centroids are nearest to it, each once."""
    monkeypatch.setattr(heads, "RIVALS", 200)
    vectors, owners = clusters(2, entries=300)
    centroids = centroids_of(vectors, owners, 300)
    rivals = _SparseProblem(vectors, owners, centroids)._rivals
    assert rivals[:, 0].tolist() == owners.tolist()
    for row, own, scores in zip(rivals, owners, vectors @ centroids.T, strict=True):
        others = [entry for entry in np.argsort(-scores) if entry != own]
        assert set(row[1:].tolist()) == set(others[:199])


def test_many_entries_are_told_from_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many entries each item is told from its nearest rivals alone, and that is nearly as good."""
    vectors, owners = clusters(16)
    messages, expected = clusters(100, seed=2)
    dense = fit_heads(vectors, owners, ENTRIES)
    monkeypatch.setattr(heads, "RIVALS", 3)
    np.testing.assert_array_equal(fit_heads(vectors, owners, ENTRIES).weights, dense.weights)
    monkeypatch.setattr(heads, "EVERYONE", ENTRIES - 1)
    sparse = fit_heads(vectors, owners, ENTRIES)
    assert np.abs(sparse.weights - dense.weights).max() > 0.05
    assert hits(messages, expected, sparse) > hits(messages, expected, plain(vectors, owners))
    monkeypatch.setattr(heads, "RIVALS", ENTRIES)
    np.testing.assert_allclose(fit_heads(vectors, owners, ENTRIES).weights, dense.weights, atol=0.01)


@pytest.mark.parametrize("iterations", [1, 3])
def test_stopping_early_does_no_harm(monkeypatch: pytest.MonkeyPatch, iterations: int) -> None:
    """A fit that ran out of iterations is one on the way: better than the centroids, if not the best."""
    vectors, owners = clusters(16)
    problem = _Problem(vectors, owners, centroids_of(vectors, owners, ENTRIES))
    whole = fit_heads(vectors, owners, ENTRIES)
    monkeypatch.setattr(heads, "ITERATIONS", iterations)
    early = fit_heads(vectors, owners, ENTRIES)
    at_start, at_end = (problem.loss(flat(of))[0] for of in (plain(vectors, owners), whole))
    assert at_end < problem.loss(flat(early))[0] < at_start


def test_the_same_text_in_two_entries_breaks_nothing() -> None:
    """Items that cannot be told apart leave heads finite, and the others as well told apart."""
    vectors, owners = clusters(4)
    vectors[owners == 1] = vectors[owners == 0]
    found = fit_heads(vectors, owners, ENTRIES)
    assert np.isfinite(found.weights).all()
    np.testing.assert_allclose(found.weights[0], found.weights[1], atol=1e-3)
    others = owners > 1
    assert hits(vectors[others], owners[others], found) == others.sum()
