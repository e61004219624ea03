"""Find the items nearest to a vector: approximately with Annoy, or exactly by a scan."""

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

SearchMode = Literal["annoy", "exact"]


class Search(Protocol):
    """Finds items near a vector."""

    def nearest(self, vector: Floats) -> tuple[Positions, Floats]:
        """The nearest items.

        Args:
            vector: (dimension,) float32, unit length.

        Returns:
            Positions of items and their similarities (dot products), best first.
        """
        ...


class AnnoySearch:
    """Annoy's trees choose the items, their own vectors score them; scores are those of the exact scan.

    Args:
        annoy: a loaded `AnnoyIndex`, angular.
        vectors: (items, dimension) float32, unit length; may be memory-mapped.
        neighbours: how many items to find.
        search_k: how many of Annoy's nodes to inspect.
    """

    def __init__(self, annoy: Any, vectors: Floats, *, neighbours: int, search_k: int) -> None:
        self._annoy = annoy
        self._vectors = vectors
        self._neighbours = neighbours
        self._search_k = search_k

    def nearest(self, vector: Floats) -> tuple[Positions, Floats]:
        """See `Search.nearest`."""
        found = self._annoy.get_nns_by_vector(vector.tolist(), self._neighbours, self._search_k)
        positions = np.array(found, dtype=np.int64)
        return _best_first(positions, self._vectors[positions] @ vector, self._neighbours)


class ExactSearch:
    """Scores every item; the reference, and quick enough for some thousands of them."""

    def __init__(self, vectors: Floats, *, neighbours: int) -> None:
        self._vectors = vectors
        self._neighbours = neighbours

    def nearest(self, vector: Floats) -> tuple[Positions, Floats]:
        """See `Search.nearest`."""
        scores = self._vectors @ vector
        count = min(self._neighbours, len(scores))
        positions = np.argpartition(-scores, count - 1)[:count]
        return _best_first(positions, scores[positions], count)


def _best_first(positions: Positions, scores: Floats, count: int) -> tuple[Positions, Floats]:
    # Ties are broken by position, so that the same message gets the same answer from either search.
    order = np.lexsort((positions, -scores))[:count]
    return positions[order], scores[order]
