"""How much heads and shared words count in entries' scores, chosen on held-out phrasings."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from intents.candidates import Figures, Weights
from intents.holdout import Heldout

Booleans = npt.NDArray[np.bool_]

# What is tried, and what did well with messages of every kind of FAQ that faqwire is measured on: validation messages,
# never those that it is measured by.
DEFAULT = Weights(head=4.0, lexical=1.0)
WEIGHTS = tuple(
    Weights(head=head, lexical=lexical) for head in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0) for lexical in (0.0, 0.5, 1.0, 2.0)
)


def choose_weights(held_out: Heldout) -> Weights:
    """The weights with which most held-out phrasings find their entry, or `DEFAULT` where those do about as well.

    That is within one standard error of the difference (as Breiman et al. 1984 choose among trees): many weights do
    about as well on any FAQ, and the best of them by a few phrasings is the best by chance. Where there are too few to
    calibrate on, all are.
    """
    if held_out.few:
        return DEFAULT
    return best_weights({weights: _hits(held_out, weights) for weights in WEIGHTS})


def best_weights(hits: Mapping[Weights, Booleans]) -> Weights:
    """The best weights by what they find, or `DEFAULT`; see `choose_weights`.

    Args:
        hits: (n,) whether each message's entry came first, for every one of `WEIGHTS`.
    """
    best = max(hits, key=lambda weights: (int(hits[weights].sum()), -weights.head - weights.lexical))
    gain = hits[best].astype(np.float64) - hits[DEFAULT]
    return best if gain.sum() > math.sqrt(len(gain)) * gain.std() else DEFAULT


def _hits(held_out: Heldout, weights: Weights) -> Booleans:
    tops = [_top(found, weights) for found in held_out.in_scope]
    return np.array([top == expected for top, expected in zip(tops, held_out.expected, strict=True)], dtype=np.bool_)


def _top(found: Figures, weights: Weights) -> int:
    """The first entry of a message; -1 where it found none."""
    return int(found.entries[np.argmax(found.joined(weights))]) if len(found.entries) else -1
