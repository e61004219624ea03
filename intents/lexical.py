"""Lexical similarity: which words a message shares with an item, and how rare these are.

A text's terms are its words and its pairs of neighbouring words, and each weighs `(1 + ln count) * idf` with the
smoothed `idf = ln((1 + items) / (1 + items that have it)) + 1` (Salton and Buckley 1988). The similarity of two texts
is the cosine of their weights. A term that no item has counts towards a message's length: what else it speaks of makes
it less like anything here.

A bi-encoder is trained to see past the words; where two entries differ in one ("card" and "virtual card") the word
says which is meant.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from intents.normalise import normalise
from intents.search import Floats, Positions

# Chinese and Japanese leave no space between words: each character is one, and pairs of them are what is compared.
_UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# Vowel signs and accents are no letters to `re`, but parts of words: without them Hindi's words would fall apart.
_MARKS = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M"))
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+")

Terms = npt.NDArray[np.uint32]
Columns = npt.NDArray[np.int32]


def terms_of(text: str) -> list[int]:
    """The terms of a text as 32-bit hashes, the same in every process; repeated where they are."""
    words = [word.encode() for word in _WORD.findall(normalise(text))]
    pairs = [b"%b %b" % pair for pair in pairwise(words)]
    return [zlib.crc32(term) for term in (*words, *pairs)]


@dataclass(frozen=True)
class Lexicon:
    """The terms of all items, and their weights: a sparse matrix by rows.

    Attributes:
        terms: (terms,) uint32, distinct, ascending.
        idf: (terms,) float32.
        starts: (items + 1,) int64, where each item's cells begin, and where the last one's end.
        columns: (cells,) int32, which term.
        weights: (cells,) float32; an item's have unit length.
    """

    terms: Terms
    idf: Floats
    starts: Positions
    columns: Columns
    weights: Floats

    def is_whole(self, items: int) -> bool:
        """Whether its arrays fit each other, and so many items."""
        cells = len(self.columns)
        return (
            self.starts.shape == (items + 1,)
            and self.starts[0] == 0
            and bool(np.all(np.diff(self.starts) >= 0))
            and self.starts[-1] == cells
            and self.columns.shape == self.weights.shape == (cells,)
            and self.terms.shape == self.idf.shape
            and bool(np.all(self.terms[:-1] < self.terms[1:]))
            and (not cells or 0 <= self.columns.min() <= self.columns.max() < len(self.terms))
        )

    def similarities(self, text: str, positions: Positions) -> Floats:
        """How similar a text is to some items.

        Args:
            text: any.
            positions: (n,) which items.

        Returns:
            (n,) float32, 0 to 1.
        """
        counts = Counter(terms_of(text))
        if not counts or not len(self.terms):
            return np.zeros(len(positions), dtype=np.float32)
        asked = np.fromiter(counts, dtype=np.uint32, count=len(counts))
        weights = 1 + np.log(np.fromiter(counts.values(), dtype=np.float32, count=len(counts)))
        places = np.minimum(np.searchsorted(self.terms, asked), len(self.terms) - 1)
        known = self.terms[places] == asked
        weights *= np.where(known, self.idf[places], _idf(len(self.starts) - 1, 0))
        order = np.argsort(places[known])
        # The message's own terms and weights, and one more that is nobody's: what is not found stands there.
        own = np.append(places[known][order], len(self.terms)).astype(np.int32)
        weight = np.append(weights[known][order] / np.linalg.norm(weights), 0).astype(np.float32)
        begin = self.starts[positions]
        lengths = self.starts[positions + 1] - begin
        cells = np.arange(lengths.sum()) + np.repeat(begin - np.cumsum(lengths) + lengths, lengths)
        columns = self.columns[cells]
        # Among some dozens: a row of all terms would cost more, the larger the FAQ.
        found = np.searchsorted(own, columns)
        shared = own[found] == columns
        rows = np.repeat(np.arange(len(positions)), lengths)[shared]
        products = weight[found[shared]] * self.weights[cells[shared]]
        return np.minimum(np.bincount(rows, products, minlength=len(positions)), 1.0).astype(np.float32)


def lexicon_of(texts: Sequence[str]) -> Lexicon:
    """The lexicon of items with these texts."""
    found = [terms_of(text) for text in texts]
    lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    flat = np.fromiter((term for one in found for term in one), dtype=np.uint32, count=int(lengths.sum()))
    terms, columns = np.unique(flat, return_inverse=True)
    # An item and a term in one number: numpy sorts those many times sooner than rows of two.
    keys = np.repeat(np.arange(len(found)), lengths) * max(1, len(terms)) + columns
    cells, counts = np.unique(keys, return_counts=True)
    rows, columns = np.divmod(cells, max(1, len(terms)))
    idf = _idf(len(found), np.bincount(columns, minlength=len(terms)))
    weights = (1 + np.log(counts)) * idf[columns]
    squares = np.bincount(rows, weights**2, minlength=len(found))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(found)))]).astype(np.int64)
    unit = weights / np.sqrt(squares[rows])
    return Lexicon(terms, idf.astype(np.float32), starts, columns.astype(np.int32), unit.astype(np.float32))


def _idf(items: int, having: int | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    idf: npt.NDArray[np.float64] = np.log((1 + items) / (1 + np.asarray(having))) + 1
    return idf
