"""Entry heads: a light linear layer over the bi-encoder's vectors, fitted when an index is built.

A head is a vector and a bias for each entry, and an entry's head score of a message is `head · vector + bias`. Heads
are those that minimise

    mean over items of  cross-entropy(softmax over entries of TEMPERATURE * head score, the item's own entry)
    + STRENGTH * sum over entries of  |head - centroid|²

a multinomial logistic regression that is drawn to the entries' centroids instead of to zero (as the shrunken centroids
of Tibshirani et al. 2002 are drawn together). So where the items say little, an entry with one phrasing say, its head
stays its centroid, and with hundreds of phrasings it is what tells the entry from its neighbours. It is never worse
than the centroid on the data it was chosen on, from one phrasing an entry to hundreds (`bench/heads.py`).

With more entries than `EVERYONE` an item is told from the `RIVALS` only whose centroids are nearest to it, so that the
work grows with the items and not with items times entries.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from intents.search import Floats, Positions

TEMPERATURE = 10.0
STRENGTH = 1e-3
EVERYONE = 512
RIVALS = 64
ITERATIONS = 100
# With fewer multiplications than this a step is done sooner than BLAS has woken its threads, and many times sooner
# where something else keeps the cores busy.
_THREADED = 1 << 27
# Numbers that a block of items holds at a time: 128 MiB.
_CELLS = 1 << 25

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Heads:
    """A linear layer.

    Attributes:
        weights: (entries, dimension) float32; zeros for entries without items.
        biases: (entries,) float32.
    """

    weights: Floats
    biases: Floats

    def of(self, vector: Floats, entries: Positions) -> Floats:
        """The head scores of some entries for one vector.

        Args:
            vector: (dimension,) float32, unit length.
            entries: (n,) which.

        Returns:
            (n,) float32.
        """
        scores: Floats = self.weights[entries] @ vector + self.biases[entries]
        return scores


def centroids_of(vectors: Floats, owners: Positions, entries: int) -> Floats:
    """The mean direction of each entry's items: (entries, dimension) float32, unit length; zeros without items."""
    sums = np.zeros((entries, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, owners, vectors)
    lengths = np.linalg.norm(sums, axis=-1, keepdims=True)
    return (sums / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def fit_heads(vectors: Floats, owners: Positions, entries: int) -> Heads:
    """Fit the heads of all entries.

    Args:
        vectors: (items, dimension) float32, unit length.
        owners: (items,) the entry of every item.
        entries: how many there are; those without items get no head, and are nobody's rivals.
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    weights, biases = centroids_of(vectors, owners, entries), np.zeros(entries, dtype=np.float32)
    present, own = np.unique(owners, return_inverse=True)
    if len(present) < 2:
        return Heads(weights, biases)
    start = weights[present]
    problem = _Problem(vectors, own, start) if len(present) <= EVERYONE else _SparseProblem(vectors, own, start)
    began = np.concatenate([start.ravel(), np.zeros(len(present), dtype=np.float32)]).astype(np.float64)
    with threadpool_limits(None if vectors.size * len(present) > _THREADED else 1, user_api="blas"):
        found = minimize(
            problem.loss,
            began,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ITERATIONS, "maxcor": 10 if len(present) <= EVERYONE else 4, "ftol": 1e-7},
        )
    weights[present] = found.x[: start.size].reshape(start.shape)
    biases[present] = found.x[start.size :]
    return Heads(weights, biases)


class _Problem:
    """The loss and its gradient, every item told from every entry.

    Args:
        vectors: (items, dimension) float32.
        own: (items,) the entry of each.
        centroids: (entries, dimension) float32.
    """

    def __init__(self, vectors: Floats, own: Positions, centroids: Floats) -> None:
        self._vectors, self._own, self._centroids = np.asarray(vectors), own, centroids
        self._size = max(1, _CELLS // len(centroids))

    def loss(self, flat: Doubles) -> tuple[float, Doubles]:
        """The loss at flattened weights and biases, and its gradient."""
        entries, dimension = self._centroids.shape
        weights = flat[: entries * dimension].reshape(entries, dimension).astype(np.float32)
        biases = flat[entries * dimension :].astype(np.float32)
        value, d_weights, d_biases = self._entropy(weights, biases)
        away = weights - self._centroids
        value += STRENGTH * float(np.sum(away.astype(np.float64) ** 2))
        d_weights += 2 * STRENGTH * away
        return value, np.concatenate([d_weights.ravel(), d_biases]).astype(np.float64)

    def _entropy(self, weights: Floats, biases: Floats) -> tuple[float, Floats, Floats]:
        total, d_weights, d_biases = 0.0, np.zeros_like(weights), np.zeros_like(biases)
        for block in self._blocks(self._size):
            value, by_weights, by_biases = self._part(block, weights, biases)
            total += value
            d_weights += by_weights
            d_biases += by_biases
        scale = np.float32(TEMPERATURE / len(self._own))
        return total / len(self._own), scale * d_weights, scale * d_biases

    def _part(self, block: slice, weights: Floats, biases: Floats) -> tuple[float, Floats, Floats]:
        """The summed cross-entropy of some items, and its gradient but for the temperature."""
        vectors = self._vectors[block]
        value, excess = _softmax(TEMPERATURE * (vectors @ weights.T + biases), self._own[block])
        return value, excess.T @ vectors, excess.sum(axis=0)

    def _blocks(self, size: int) -> Iterator[slice]:
        for start in range(0, len(self._own), size):
            yield slice(start, start + size)


class _SparseProblem(_Problem):
    """The same with every item told from its own entry and from the nearest others."""

    def __init__(self, vectors: Floats, own: Positions, centroids: Floats) -> None:
        super().__init__(vectors, own, centroids)
        # Choosing rivals takes a few times what the similarities do.
        size = max(1, self._size // 4)
        self._rivals = np.concatenate([self._nearest(block) for block in self._blocks(size)])
        self._size = max(1, _CELLS // (RIVALS * vectors.shape[1]))

    def _nearest(self, block: slice) -> npt.NDArray[np.int32]:
        """(items, rivals) the item's own entry first, then the nearest others."""
        scores, rows = self._vectors[block] @ self._centroids.T, self._own[block]
        scores[np.arange(len(rows)), rows] = np.inf
        near = np.argpartition(-scores, RIVALS - 1, axis=1)[:, :RIVALS].astype(np.int32)
        place = np.argmax(near == rows[:, None], axis=1)
        near[np.arange(len(rows)), place] = near[:, 0]
        near[:, 0] = rows
        return near

    def _part(self, block: slice, weights: Floats, biases: Floats) -> tuple[float, Floats, Floats]:
        from scipy.sparse import csr_array

        vectors, near = self._vectors[block], self._rivals[block]
        logits = TEMPERATURE * (np.einsum("nd,nkd->nk", vectors, weights[near]) + biases[near])
        value, excess = _softmax(logits, np.zeros(len(near), dtype=np.int64))
        ends = np.arange(0, near.size + 1, near.shape[1])
        table = csr_array((excess.ravel(), near.ravel(), ends), shape=(len(near), len(biases)))
        by_biases = np.bincount(near.ravel(), excess.ravel(), minlength=len(biases)).astype(np.float32)
        return value, table.T @ vectors, by_biases


def _softmax(logits: Floats, own: Positions) -> tuple[float, Floats]:
    """The summed cross-entropy of (n, k) logits, and what their softmax is above the truth."""
    rows = np.arange(len(own))
    logits = logits - logits.max(axis=1, keepdims=True)
    excess = np.exp(logits)
    mass = excess.sum(axis=1, keepdims=True)
    value = float(np.sum(np.log(mass[:, 0]) - logits[rows, own], dtype=np.float64))
    excess /= mass
    excess[rows, own] -= 1.0
    return value, excess
