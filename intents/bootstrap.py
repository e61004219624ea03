"""Whether a difference between two systems may be chance: the paired bootstrap (Efron and Tibshirani 1993).

Both systems are put the same messages. These are drawn again with replacement, in-scope and out-of-scope ones apart, so
that every draw has as many of either; the middle 95 % of the differences over all draws is the interval.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from intents.calibrate import Doubles
from intents.figures import Columns, Figure

RESAMPLES = 1000
SEED = 20261123


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How much higher a figure is with one system than with another.

    Attributes:
        difference: as measured.
        low, high: the 95 % interval.
    """

    difference: float
    low: float
    high: float

    @property
    def is_loss(self) -> bool:
        """Whether the interval lies wholly below zero."""
        return self.high < 0


def differences(
    pairs: Sequence[tuple[Columns, Columns]],
    figures: Mapping[str, Figure],
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> dict[str, Difference | None]:
    """Compare two systems.

    Args:
        pairs: of each draw of a few-shot evaluation, or of the only one: the columns of the one system and of the
            other, for the same messages in the same order, which are those of all draws.
        figures: what to compare, by name.
        seed: of the resampling.
        resamples: how many.

    Returns:
        By the same names how much higher the first system's figure is, the mean over all draws; None where a figure
        cannot be had.
    """
    in_scope = pairs[0][0].in_scope
    chance = np.random.default_rng(seed)
    groups = [group for group in (np.flatnonzero(in_scope), np.flatnonzero(~in_scope)) if len(group)]
    measured = _gains(pairs, figures, np.ones(len(in_scope)))
    drawn: list[dict[str, float | None]] = []
    for _ in range(resamples):
        again = np.concatenate([chance.choice(group, len(group)) for group in groups])
        drawn.append(_gains(pairs, figures, np.bincount(again, minlength=len(in_scope)).astype(np.float64)))
    found: dict[str, Difference | None] = {}
    for name, gain in measured.items():
        values = [one for gains in drawn if (one := gains[name]) is not None]
        found[name] = None
        if gain is not None and values:
            low, high = np.quantile(values, (0.025, 0.975))
            found[name] = Difference(difference=gain, low=float(low), high=float(high))
    return found


def _gains(
    pairs: Sequence[tuple[Columns, Columns]],
    figures: Mapping[str, Figure],
    weight: Doubles,
) -> dict[str, float | None]:
    """How much higher each figure is with the first system, the mean over all draws."""
    gains: dict[str, float | None] = {}
    for name, figure in figures.items():
        each = [(figure(one, weight), figure(other, weight)) for one, other in pairs]
        known = [one - other for one, other in each if one is not None and other is not None]
        gains[name] = sum(known) / len(known) if known else None
    return gains
