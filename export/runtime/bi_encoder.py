"""The bi-encoder: texts to unit vectors."""

from collections.abc import Callable, Sequence

import numpy as np

from export.runtime.encoder import Encoder, Floats, by_length
from export.runtime.tokens import Tokens, tokens_of


class BiEncoder(Encoder):
    """Encodes a text alone, as a unit vector; the dot product of two is their similarity."""

    kind = "bi-encoder"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.bundle.manifest.dimension

    def tokenize(self, text: str) -> Tokens:
        """Token ids of one text, with the bundle's prefix, cut to its `max_tokens`."""
        return tokens_of(self._tokenizer.encode(self.bundle.manifest.prefix + text))

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 32, progress: Callable[[int], None] | None = None
    ) -> Floats:
        """Encode many texts, in batches of similar length.

        Args:
            texts: any number of texts.
            batch_size: how many to run at a time.
            progress: called with the number of texts just encoded.

        Returns:
            (n, dimension) float32, unit length, in the order of `texts`.
        """
        prefix = self.bundle.manifest.prefix
        tokens = [tokens_of(e) for e in self._tokenizer.encode_batch([prefix + text for text in texts])]
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for batch in by_length(tokens, batch_size):
            vectors[batch] = self.run([tokens[i] for i in batch])
            if progress is not None:
                progress(len(batch))
        return vectors
