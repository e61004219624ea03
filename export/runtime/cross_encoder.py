"""The cross-encoder: pairs of texts to logits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from export.bundle import Bundle, Variant
from export.runtime.encoder import Encoder, Floats, by_length
from export.runtime.session import Device
from export.runtime.tokens import Tokens, tokens_of


def cut_to(bundle: Bundle, max_tokens: int) -> Bundle:
    """The bundle as if it had been exported with this limit, if its own is not lower; its fingerprint stays.

    Args:
        bundle: any bundle.
        max_tokens: of an input, special ones included.
    """
    lower = min(max_tokens, bundle.manifest.max_tokens)
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, max_tokens=lower))


class CrossEncoder(Encoder):
    """Reads two texts together and gives one logit: higher means that the second answers the first.

    `run` gives (n,) float32 logits.

    Args:
        bundle: an opened cross-encoder's bundle.
        variant: which of its precisions to run.
        device: where.
        max_tokens: of a pair, special ones included, where that is fewer than the bundle's; None is the bundle's. It is
            settled here, once: a tokenizer is never changed while it is in use.
        options: see `Encoder`.
    """

    kind = "cross-encoder"

    def __init__(
        self, bundle: Bundle, variant: Variant, device: Device, *, max_tokens: int | None = None, **options: Any
    ) -> None:
        # Whatever of the encoder depends on the limit reads it from the manifest.
        super().__init__(bundle if max_tokens is None else cut_to(bundle, max_tokens), variant, device, **options)

    @property
    def max_tokens(self) -> int:
        """The most tokens of a pair, special ones included."""
        return self.bundle.manifest.max_tokens

    def tokenize(self, first: str, second: str) -> Tokens:
        """Token ids of one pair.

        Where it passes the limit the longer text is cut, from its end, down to the length of the other, and then both:
        a first text of up to half the limit stays whole.
        """
        return tokens_of(self._tokenizer.encode(first, second))

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        batch_size: int = 32,
        progress: Callable[[int], None] | None = None,
    ) -> Floats:
        """Score many pairs, in batches of similar length.

        Args:
            pairs: any number of them.
            batch_size: how many to run at a time.
            progress: called with the number of pairs just scored.

        Returns:
            (n,) float32 logits, in the order of `pairs`.
        """
        tokens = [tokens_of(e) for e in self._tokenizer.encode_batch(list(pairs))]
        logits = np.empty(len(pairs), dtype=np.float32)
        for batch in by_length(tokens, batch_size):
            logits[batch] = self.run([tokens[i] for i in batch])
            if progress is not None:
                progress(len(batch))
        return logits
