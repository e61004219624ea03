"""Find the items nearest to a vector: approximately with Annoy, or exactly by a scan."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

SearchMode = Literal["annoy", "exact"]


# Similarities that an exact scan holds at a time: 64 MiB.
SCAN_CELLS = 1 << 24


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found for one message.

    Attributes:
        vector: (dimension,) float32, the message's, unit length.
        positions: (n,) the nearest items, best first; ties by position.
        scores: (n,) their similarities (dot products).
    """

    vector: Floats
    positions: Positions
    scores: Floats


class Search(Protocol):
    """Finds the items nearest to messages; may be used by several threads."""

    def retrieve(self, vectors: Floats) -> list[Retrieved]:
        """The nearest items of each message.

        Args:
            vectors: (n, dimension) float32, unit length.
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

    def retrieve(self, vectors: Floats) -> list[Retrieved]:
        """See `Search.retrieve`."""
        return [self._nearest(vector) for vector in vectors]

    def _nearest(self, vector: Floats) -> Retrieved:
        found = self._annoy.get_nns_by_vector(vector.tolist(), self._neighbours, self._search_k)
        positions = np.array(found, dtype=np.int64)
        return _best_first(vector, positions, self._vectors[positions] @ vector)


class ExactSearch:
    """Scores every item; the reference, and the quicker search of some thousands of them.

    Args:
        vectors: (items, dimension) float32, unit length; may be memory-mapped.
        neighbours: how many items to find.
    """

    def __init__(self, vectors: Floats, *, neighbours: int) -> None:
        self._vectors = vectors
        self._neighbours = min(neighbours, len(vectors))

    def retrieve(self, vectors: Floats) -> list[Retrieved]:
        """See `Search.retrieve`."""
        block = max(1, SCAN_CELLS // len(self._vectors))
        return [
            self._nearest(vector, scores)
            for start in range(0, len(vectors), block)
            for vector, scores in self._scan(vectors[start : start + block])
        ]

    def _scan(self, vectors: Floats) -> Iterator[tuple[Floats, Floats]]:
        return zip(vectors, vectors @ self._vectors.T, strict=True)

    def _nearest(self, vector: Floats, scores: Floats) -> Retrieved:
        positions = np.argpartition(-scores, self._neighbours - 1)[: self._neighbours]
        return _best_first(vector, positions, scores[positions])


def _best_first(vector: Floats, positions: Positions, scores: Floats) -> Retrieved:
    # Ties are broken by position, so that the same message gets the same answer from either search.
    order = np.lexsort((positions, -scores))
    return Retrieved(vector, positions[order], scores[order])
