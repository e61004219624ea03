"""What bi-encoder and cross-encoder share: a tokenizer and one or more sessions of one variant."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from export.bundle import Bundle, Kind, Variant
from export.runtime.session import Device, open_session
from export.runtime.tokens import Tokens, feed, open_tokenizer

Floats = npt.NDArray[np.float32]


class Encoder:
    """One bundle, ready to run.

    `run` may be called from several threads, each with its own `session` number: one thread owns each session.

    Args:
        bundle: an opened bundle of this class's `kind`.
        variant: which of its precisions to run.
        device: where.
        sessions: how many sessions to open, each with its own copy of the weights.
        threads: threads of each session.
    """

    kind: Kind

    def __init__(
        self, bundle: Bundle, variant: Variant, device: Device, *, sessions: int = 1, threads: int = 1
    ) -> None:
        if bundle.manifest.kind != self.kind:
            raise ValueError(f"{bundle.folder} is a {bundle.manifest.kind}, not a {self.kind}")
        self.bundle = bundle
        self.variant: Variant = variant
        self.device = device
        self._tokenizer = open_tokenizer(bundle)
        path = bundle.variant_path(variant)
        self._sessions = [open_session(path, device, threads=threads) for _ in range(sessions)]
        self._inputs = [i.name for i in self._sessions[0].get_inputs()]

    @property
    def sessions(self) -> int:
        """How many sessions may run at the same time."""
        return len(self._sessions)

    def run(self, batch: Sequence[Tokens], session: int = 0) -> Floats:
        """Run one batch on one session; what the rows are is the subclass's to say."""
        result: Floats = self._sessions[session].run(None, feed(batch, self._inputs))[0]
        return result

    def warm_up(self) -> None:
        """Run one inference on every session, so that the first message does not pay for set-up."""
        tokens = Tokens(np.zeros(8, dtype=np.int64), np.zeros(8, dtype=np.int64))
        for session in range(self.sessions):
            self.run([tokens], session)


def by_length(items: Sequence[Tokens], size: int) -> Iterator[list[int]]:
    """Positions of `items` in batches of at most `size`, alike in length, longest first.

    Longest first: what does not fit into memory fails at once, and an estimate of the time left only improves.
    """
    order = sorted(range(len(items)), key=lambda i: -len(items[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
