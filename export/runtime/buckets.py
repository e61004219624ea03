"""The shapes that batches are padded up to where every new shape costs time: a grid, fixed when an encoder is made.

On a GPU the first run of a shape allocates and chooses kernels, and TensorRT fails outside of what its engine was built
for. With a grid every shape has been run before the first message. Each side doubles from step to step, so beyond the
first step less than half of a side is padding, and less than three quarters of a batch.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Self

Shape = tuple[int, int]
"""Rows and tokens of a batch, padding included."""

_LEAST_TOKENS = 16  # below this a run costs its launches, whatever the length


@dataclass(frozen=True)
class Buckets:
    """A grid of shapes.

    Attributes:
        rows: numbers of rows, ascending.
        tokens: lengths, ascending; the last is the longest input there is.
    """

    rows: tuple[int, ...]
    tokens: tuple[int, ...]

    @classmethod
    def up_to(cls, *, max_rows: int, max_tokens: int) -> Self:
        """The grid that ends at these, both at least 1."""
        return cls(_doubling(1, max_rows), _doubling(_LEAST_TOKENS, max_tokens))

    def fit(self, rows: int, tokens: int) -> Shape:
        """The smallest bucket that holds this many rows of this length.

        Raises:
            ValueError: it is larger than the grid.
        """
        if rows > self.rows[-1] or tokens > self.tokens[-1]:
            raise ValueError(f"{rows} rows of {tokens} tokens are more than {self.rows[-1]} of {self.tokens[-1]}")
        return self.rows[bisect_left(self.rows, rows)], self.tokens[bisect_left(self.tokens, tokens)]

    def reached(self, *, max_rows: int, max_batch_tokens: int) -> list[Shape]:
        """The buckets that batches within these limits are padded up to, smaller ones first.

        Args:
            max_rows: of a batch.
            max_batch_tokens: rows times the longest of them, before it is padded up; one row alone may have more.
        """
        shapes = []
        for fewer, rows in zip((0, *self.rows), self.rows, strict=False):
            for shorter, tokens in zip((0, *self.tokens), self.tokens, strict=False):
                least = (fewer + 1) * (shorter + 1)  # of the batches that end in this bucket
                if fewer + 1 <= max_rows and (fewer == 0 or least <= max_batch_tokens):
                    shapes.append((rows, tokens))
        return sorted(shapes, key=lambda shape: shape[0] * shape[1])


def _doubling(first: int, last: int) -> tuple[int, ...]:
    steps = [first]
    while steps[-1] < last:
        steps.append(2 * steps[-1])
    return (*steps[:-1], last)
