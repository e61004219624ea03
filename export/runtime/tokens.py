"""Texts to token ids, and ids to the rectangles that a session takes.

Padding is done in numpy: changing a tokenizer's padding or truncation while another thread uses it raises "Already
borrowed". So a tokenizer is set up once, when it is opened, and never touched again.
"""

from collections.abc import Callable, Mapping, Sequence
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


_MASK = "attention_mask"
_INPUTS: dict[str, Callable[[Tokens], Int64s | int]] = {
    "input_ids": lambda tokens: tokens.ids,
    _MASK: lambda _: 1,
    "token_type_ids": lambda tokens: tokens.type_ids,
}


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

    Returns:
        For each name, an (n, longest) int64 array.
    """
    shape = (len(batch), max(len(tokens) for tokens in batch))
    arrays = {name: np.zeros(shape, dtype=np.int64) for name in input_names}
    _write(arrays, batch)
    return arrays


def fill(arrays: Mapping[str, Int64s], batch: Sequence[Tokens]) -> None:
    """Pad a batch on the right and below into arrays that are used again.

    A row of padding has one visible token: attention over none is a division of zero by zero.

    Args:
        arrays: inputs by name, all of one shape, at least (n, longest); whatever they held is gone.
        batch: the inputs.
    """
    for array in arrays.values():
        array.fill(0)
    _write(arrays, batch)
    if _MASK in arrays:
        arrays[_MASK][len(batch) :, 0] = 1


def _write(arrays: Mapping[str, Int64s], batch: Sequence[Tokens]) -> None:
    """Write a batch into zeros. Padding's ids stay 0: the mask hides them, so their value never matters."""
    for name, array in arrays.items():
        values = _INPUTS[name]
        for row, tokens in enumerate(batch):
            array[row, : len(tokens)] = values(tokens)
