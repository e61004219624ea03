"""How one session runs a batch: in its own shape, or padded up to a bucket through buffers that stay bound.

On a CPU a session runs each batch as it is: padding would be work for nothing, and binding saves nothing that
`bench.gpu` can measure. On a GPU it runs buckets: see `export.runtime.buckets`. There inputs and output are bound once
for each bucket. A run copies the batch into the bound inputs and the result out of the bound output, so that nothing is
allocated on the device and no result is overwritten by the next run.

One thread at a time uses a session, and with it its runner (`Encoder.run` sees to that): none of this is locked.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from export.runtime.buckets import Buckets, Shape
from export.runtime.session import Device
from export.runtime.tokens import Int64s, Tokens, feed, fill


class Runner(Protocol):
    """Runs batches on one session."""

    session: Any

    def shape(self, rows: int, tokens: int) -> Shape:
        """The shape in which a batch of this many rows, the longest of this many tokens, is run."""

    def run(self, batch: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """The session's output for at least one input: a row for each, the caller's own."""


class Plain:
    """Runs every batch in its own shape.

    Args:
        session: an `onnxruntime.InferenceSession`.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self._inputs = [i.name for i in session.get_inputs()]

    def shape(self, rows: int, tokens: int) -> Shape:
        """See `Runner.shape`."""
        return rows, tokens

    def run(self, batch: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """See `Runner.run`."""
        result: npt.NDArray[np.float32] = self.session.run(None, feed(batch, self._inputs))[0]
        return result


class Bound:
    """Runs every batch in a bucket, through buffers bound when the bucket is first used: in the warm-up.

    A batch of more rows than the largest bucket is run in parts.

    Args:
        session: an `onnxruntime.InferenceSession`.
        device: what it was opened for; its inputs are kept there.
        buckets: the shapes.
        row: shape of one row of the output: (dimension,) for vectors, () for logits.
    """

    def __init__(self, session: Any, device: Device, buckets: Buckets, *, row: tuple[int, ...]) -> None:
        self.session = session
        self._device = device
        self._buckets = buckets
        self._row = row
        self._bindings: dict[Shape, _Binding] = {}

    def shape(self, rows: int, tokens: int) -> Shape:
        """See `Runner.shape`; of a batch that is run in parts, the first one's."""
        return self._buckets.fit(min(rows, self._buckets.rows[-1]), tokens)

    def run(self, batch: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """See `Runner.run`."""
        most = self._buckets.rows[-1]
        parts = [self._run(batch[start : start + most]) for start in range(0, len(batch), most)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, batch: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        shape = self.shape(len(batch), max(len(tokens) for tokens in batch))
        binding = self._bindings.get(shape)
        if binding is None:
            binding = self._bindings[shape] = _Binding(self.session, self._device, shape, self._row)
        return binding.run(batch)


class _Binding:
    """The buffers of one bucket: inputs here and on the device, the output here.

    The output is bound on the host, where ONNX Runtime copies it at the end of a run. What a run returns is a copy of
    that, for the next run writes there again.
    """

    def __init__(self, session: Any, device: Device, shape: Shape, row: tuple[int, ...]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._host: dict[str, Int64s] = {}
        self._inputs: dict[str, Any] = {}
        for name in (i.name for i in session.get_inputs()):
            self._host[name] = np.zeros(shape, dtype=np.int64)
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.int64, device.memory, device.device_id)
            self._binding.bind_ortvalue_input(name, value)
            self._inputs[name] = value
        self._output = np.zeros((shape[0], *row), dtype=np.float32)
        [output] = session.get_outputs()
        self._binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(self._output))

    def run(self, batch: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        fill(self._host, batch)
        for name, value in self._inputs.items():
            value.update_inplace(self._host[name])
        self._session.run_with_iobinding(self._binding)
        return self._output[: len(batch)].copy()
