"""What bi-encoder and cross-encoder share: a tokenizer and one or more sessions of one variant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from time import perf_counter

import numpy as np
import numpy.typing as npt

from export.bundle import Bundle, Kind, Variant
from export.runtime.buckets import Buckets, Shape
from export.runtime.runner import Bound, Plain, Runner
from export.runtime.session import TENSORRT, Device, open_session, variant_file
from export.runtime.tensorrt import engine_options
from export.runtime.tokens import Tokens, open_tokenizer

Floats = npt.NDArray[np.float32]

# Where shapes are not fixed, a warm-up measures those of these that the limits allow, as far as its time goes.
_SAMPLE_ROWS = (1, 2, 4, 8, 16, 32)
_SAMPLE_TOKENS = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a batch took: padding it, running it, and copying its result.

    Attributes:
        rows: of the shape that was run.
        tokens: of each of them, padding included.
        seconds: of one run, not the shape's first.
    """

    rows: int
    tokens: int
    seconds: float


class Encoder:
    """One bundle, ready to run.

    `run` may be called from several threads, each with a `session` number of its own. Who shares one waits: so do, for
    some milliseconds, the messages on an index that has just been replaced and those on its successor.

    Args:
        bundle: an opened bundle of this class's `kind`.
        variant: which of its precisions to run.
        device: where.
        sessions: how many sessions to open, each with its own copy of the weights.
        threads: threads of each session.
        max_rows: the most rows of a fixed shape; larger batches are run in parts.
        fixed_shapes: whether batches are padded up to fixed shapes, or None for what suits the device.

    Attributes:
        runners: one for each session.
    """

    kind: Kind

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        device: Device,
        *,
        sessions: int = 1,
        threads: int = 1,
        max_rows: int = 32,
        fixed_shapes: bool | None = None,
    ) -> None:
        if bundle.manifest.kind != self.kind:
            raise ValueError(f"{bundle.folder} is a {bundle.manifest.kind}, not a {self.kind}")
        self.bundle = bundle
        self.variant: Variant = variant
        self.device = device
        self._tokenizer = open_tokenizer(bundle)
        self._buckets: Buckets | None = None
        if device.fixed_shapes if fixed_shapes is None else fixed_shapes:
            self._buckets = Buckets.up_to(max_rows=max_rows, max_tokens=bundle.manifest.max_tokens)
        file, own = variant_file(bundle, variant, device), {}
        if device.provider == TENSORRT:
            own = engine_options(bundle, variant, file, cache=device.tensorrt_cache, buckets=self._buckets)
        self.runners = [self._runner(open_session(file, device, threads=threads, own=own)) for _ in range(sessions)]
        self._turns = [Lock() for _ in range(sessions)]

    def _runner(self, session: object) -> Runner:
        if self._buckets is None:
            return Plain(session)
        row = (self.bundle.manifest.dimension,) if self.kind == "bi-encoder" else ()
        return Bound(session, self.device, self._buckets, row=row)

    @property
    def sessions(self) -> int:
        """How many sessions may run at the same time."""
        return len(self.runners)

    def shape(self, rows: int, tokens: int) -> Shape:
        """The rows and tokens that are really run for a batch of this many rows, the longest of this many tokens."""
        return self.runners[0].shape(rows, tokens)

    def run(self, batch: Sequence[Tokens], session: int = 0) -> Floats:
        """Run one batch on one session; what the rows are is the subclass's to say."""
        with self._turns[session]:
            return self.runners[session].run(batch)

    def warm_up(self, *, max_rows: int = 32, max_batch_tokens: int = 4096, seconds: float = 0.5) -> list[Measured]:
        """Run every session before there are messages, so that none of them pays for set-up, and measure.

        Fixed shapes are all run, twice, on every session. Other shapes need no warming: of a small grid, the smallest
        first, as many are measured on the first session as are likely to fit into the time.

        Args:
            max_rows: the most rows of the batches to come.
            max_batch_tokens: the most tokens of the batches to come, before they are padded up to a fixed shape.
            seconds: for measuring, where shapes are not fixed.

        Returns:
            At least one figure for each shape that was measured.
        """
        if self._buckets is not None:
            shapes = self._buckets.reached(max_rows=max_rows, max_batch_tokens=max_batch_tokens)
            return [self._measure(shape, session) for session in range(self.sessions) for shape in shapes]
        shapes = self._sample(max_rows, max_batch_tokens)
        for session in range(1, self.sessions):
            self._measure(shapes[0], session)
        started, measured = perf_counter(), [self._measure(shapes[0], 0)]
        for rows, tokens in shapes[1:]:
            last = measured[-1]
            expected = 2 * last.seconds * rows * tokens / (last.rows * last.tokens)
            if perf_counter() - started + expected > seconds:
                break
            measured.append(self._measure((rows, tokens), 0))
        return measured

    def _sample(self, max_rows: int, max_batch_tokens: int) -> list[Shape]:
        """Shapes worth measuring, the smallest first; never none."""
        longest = self.bundle.manifest.max_tokens
        shapes = [
            (rows, tokens)
            for rows in _SAMPLE_ROWS
            for tokens in _SAMPLE_TOKENS
            if rows <= max_rows and tokens <= longest and rows * tokens <= max_batch_tokens
        ]
        return sorted(shapes, key=lambda shape: shape[0] * shape[1]) or [(1, min(longest, _SAMPLE_TOKENS[0]))]

    def _measure(self, shape: Shape, session: int) -> Measured:
        rows, tokens = shape
        one = Tokens(np.zeros(tokens, dtype=np.int64), np.zeros(tokens, dtype=np.int64))
        batch = [one] * rows
        self.run(batch, session)
        started = perf_counter()
        self.run(batch, session)
        return Measured(rows, tokens, perf_counter() - started)


def by_length(items: Sequence[Tokens], size: int) -> Iterator[list[int]]:
    """Positions of `items` in batches of at most `size`, alike in length, longest first.

    Longest first: what does not fit into memory fails at once, and an estimate of the time left only improves.
    """
    order = sorted(range(len(items)), key=lambda i: -len(items[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
