"""FAQs of random vectors, whose phrasings lie more or less close to their entry's direction."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from intents.holdout import MOST_WORK, Heldout, Messages, hold_out
from intents.items import Item
from intents.search import Floats, Positions
from intents.weighing import choose_weights


@dataclass(frozen=True)
class Synthetic:
    """Items, their vectors and owners, the vectors of far messages, and how many entries there are."""

    vectors: Floats
    owners: Positions
    items: list[Item]
    far: Floats
    entries: int

    def hold_out(self, *, work: float = MOST_WORK) -> Heldout:
        """Its phrasings as messages."""
        neighbours = min(100, len(self.items))
        return hold_out(self.vectors, self.owners, self.items, entries=self.entries, neighbours=neighbours, work=work)

    def messages(self) -> Messages:
        """The messages of its calibration, scored with the weights that a build would choose."""
        held_out = self.hold_out()
        return held_out.messages(choose_weights(held_out), [f"far {i}" for i in range(len(self.far))], self.far)


def unit(rows: npt.NDArray[np.float64]) -> Floats:
    """Rows scaled to unit length, as float32, like the encoder's."""
    scaled: Floats = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def synthetic(entries: int, phrasings: int, noise: float, *, answers: bool = True, seed: int = 1) -> Synthetic:
    """A FAQ with so many entries, so many phrasings of each, and so much noise around their directions."""
    chance = np.random.default_rng(seed)
    items, vectors = [], []
    for entry in range(entries):
        centre = chance.normal(size=16)
        roles = ["phrasing"] * phrasings + (["answer"] if answers else [])
        items += [Item(entry, f"{entry}x{i}", role) for i, role in enumerate(roles)]  # type: ignore[arg-type]
        vectors += [centre + noise * chance.normal(size=16) for _ in roles]
    owners = np.array([item.entry for item in items], dtype=np.int64)
    return Synthetic(unit(np.array(vectors)), owners, items, unit(chance.normal(size=(200, 16))), entries)
