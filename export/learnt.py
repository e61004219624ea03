"""Which messages a cross-encoder has learnt: whoever judges or calibrates it by them takes memory for judgement.

They are kept as digests beside the weights: what visitors typed is in no file, and a text that one has can be looked
up.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.errors import SealError

LEARNT = "learnt.npy"


@dataclass(frozen=True)
class Learnt:
    """A set of messages.

    Attributes:
        digests: (n,) of their texts, distinct and ascending. One text in 10^14 is taken for another of a hundred
            thousand.
    """

    digests: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Learnt":
        """The set of some texts, each normalised as those will be that are looked up."""
        return cls(np.unique(np.array([_digest(text) for text in texts], dtype=np.uint64)))

    @classmethod
    def read(cls, folder: Path, *, error: type[SealError]) -> "Learnt":
        """What a folder says; nothing where it says nothing.

        Raises:
            SealError: (as `error`) the file is damaged.
        """
        path = folder / LEARNT
        try:
            digests = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return cls()
        except Exception as exc:  # numpy reads the header as Python does, and raises what that raises
            raise error(f"{path} cannot be read: {exc}") from exc
        if not isinstance(digests, np.ndarray) or digests.dtype != np.uint64 or digests.ndim != 1:
            raise error(f"{path} holds no digests of messages; remove it, or train again")
        return cls(np.unique(digests))

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        np.save(folder / LEARNT, self.digests, allow_pickle=False)

    def __or__(self, other: "Learnt") -> "Learnt":
        """Either's messages."""
        return Learnt(np.union1d(self.digests, other.digests))

    def __contains__(self, text: str) -> bool:
        """Whether a text is among them."""
        place = int(np.searchsorted(self.digests, digest := _digest(text)))
        return place < len(self.digests) and bool(self.digests[place] == digest)


def _digest(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
