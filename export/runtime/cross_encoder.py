"""The cross-encoder: pairs of texts to logits."""

from collections.abc import Sequence

import numpy as np

from export.runtime.encoder import Encoder, Floats, by_length
from export.runtime.tokens import Tokens, tokens_of


class CrossEncoder(Encoder):
    """Reads two texts together and gives one logit: higher means that the second answers the first."""

    kind = "cross-encoder"

    def tokenize(self, first: str, second: str) -> Tokens:
        """Token ids of one pair, the longer text cut first where the pair passes `max_tokens`."""
        return tokens_of(self._tokenizer.encode(first, second))

    def score(self, pairs: Sequence[tuple[str, str]], *, batch_size: int = 32) -> Floats:
        """Score many pairs, in batches of similar length.

        Returns:
            (n,) float32 logits, in the order of `pairs`.
        """
        tokens = [tokens_of(e) for e in self._tokenizer.encode_batch(list(pairs))]
        logits = np.empty(len(pairs), dtype=np.float32)
        for batch in by_length(tokens, batch_size):
            logits[batch] = self.run([tokens[i] for i in batch])
        return logits
