"""Texts to token ids, and ids to the rectangles that a session takes.

Padding is done in numpy: changing a tokenizer's padding or truncation while another thread uses it raises "Already
borrowed". So a tokenizer is set up once, when it is opened, and never touched again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from export.bundle import Bundle
from export.errors import BundleError

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized input, unpadded.

    Attributes:
        ids: (length,) int64.
        type_ids: (length,) int64, 0 for the first text and 1 for the second of a pair.
    """

    ids: Int64s
    type_ids: Int64s

    def __len__(self) -> int:
        """The number of tokens, special ones included."""
        return len(self.ids)


def open_tokenizer(bundle: Bundle) -> Tokenizer:
    """A bundle's tokenizer, cutting at its `max_tokens` and never padding.

    Raises:
        BundleError: the file is not a tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))
    except Exception as exc:  # tokenizers raises bare Exception
        raise BundleError(f"{bundle.tokenizer_path} cannot be read as a tokenizer: {exc}") from exc
    tokenizer.no_padding()
    tokenizer.enable_truncation(bundle.manifest.max_tokens, strategy="longest_first")
    return tokenizer


def tokens_of(encoding: Any) -> Tokens:
    """A `tokenizers.Encoding` as arrays."""
    return Tokens(np.array(encoding.ids, dtype=np.int64), np.array(encoding.type_ids, dtype=np.int64))


def feed(batch: Sequence[Tokens], input_names: Sequence[str]) -> dict[str, Int64s]:
    """Pad a batch on the right into the inputs that a session declares.

    Padding's ids are 0: the mask hides them from attention and from pooling, so their value never matters.

    Returns:
        For each name, an (n, longest) int64 array.
    """
    longest = max(len(tokens) for tokens in batch)
    shape = (len(batch), longest)
    ids, mask, types = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens.ids
        mask[row, : len(tokens)] = 1
        types[row, : len(tokens)] = tokens.type_ids
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: arrays[name] for name in input_names}
