"""Does an exported model compute what its torch reference computes? Measured on the golden texts."""

from collections.abc import Callable
from typing import Any

import numpy as np

from export.bundle import Kind, Parity, Variant
from export.errors import ParityError
from export.golden import PAIRS, SENTENCES
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.encoder import Floats
from export.runtime.tokens import Tokens

# (mean, min, batch_min): what a variant must reach. Agreement is a cosine, or one minus a difference of probabilities.
BARS: dict[Variant, tuple[float, float, float]] = {
    "fp32": (0.9999, 0.9999, 0.9999),
    "int8": (0.99, 0.97, 0.9999),
    # Measured on whatever device exports; half precision on the GPU that serves is measured there, by `faqwire doctor`.
    "fp16": (0.9995, 0.999, 0.9995),
}
BATCH = 16


def measure(encoder: BiEncoder | CrossEncoder, reference: Floats) -> Parity:
    """Run the golden texts alone and in batches of 16, and compare with the reference.

    Args:
        encoder: the variant, on the device to measure it on.
        reference: the reference's vectors or logits for `golden_tokens`.
    """
    tokens = golden_tokens(encoder)
    alone = np.concatenate([encoder.run([t]) for t in tokens])
    together = np.concatenate([encoder.run(tokens[i : i + BATCH]) for i in range(0, len(tokens), BATCH)])
    agreement = _agreement(encoder.kind)
    with_reference = np.minimum(agreement(alone, reference), agreement(together, reference))
    return Parity(
        mean=float(with_reference.mean()),
        min=float(with_reference.min()),
        batch_min=float(agreement(alone, together).min()),
        provider=encoder.device.provider,
    )


def check(variant: Variant, parity: Parity) -> None:
    """Hold a variant's parity against its bar.

    Raises:
        ParityError: it falls short.
    """
    for name, bar in zip(("mean", "min", "batch_min"), BARS[variant], strict=True):
        value = getattr(parity, name)
        if not value >= bar:  # a NaN fails too
            raise ParityError(
                f"the {variant} variant does not agree with the torch model: {name} {value:.5f}, and {bar} is "
                "needed; nothing was written. Leave this variant out with --variants, or report the model"
            )


def golden_tokens(encoder: BiEncoder | CrossEncoder) -> list[Tokens]:
    """The golden texts (or pairs of them) as the encoder's own tokenizer cuts them."""
    if isinstance(encoder, CrossEncoder):
        return [encoder.tokenize(first, second) for first, second in PAIRS]
    return [encoder.tokenize(text) for text in SENTENCES]


def _agreement(kind: Kind) -> Callable[[Floats, Floats], Any]:
    if kind == "bi-encoder":
        return lambda a, b: np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))
    return lambda a, b: 1.0 - np.abs(_sigmoid(a) - _sigmoid(b))


def _sigmoid(logits: Floats) -> Any:
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
