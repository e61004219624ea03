"""Even out the channels of layer norms, so that a few large ones do not set every row's scale.

The norm gives x' = (x - mean) * d instead of x, by its own gamma and beta, with a constant mean and d for each channel;
the weights that take it are divided by d, their bias gains mean @ W, and the residual path is multiplied back. The idea
is SmoothQuant's (Xiao et al. 2023), with the mean taken out as well.

Mean and deviation come from running the float model on random tokens: they set how well the 8-bit steps are used, and
nothing else, so no data are needed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from export.errors import ExportError
from export.int8.graph import Graph
from export.int8.linears import Floats, Linear

Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each channel of a value, (K,) float32."""

    mean: Floats
    deviation: Floats


def random_samples(model: Any) -> Iterator[Feeds]:
    """Inputs of random tokens, the same on every call, in three lengths."""
    vocabulary = _vocabulary(model)
    generator = np.random.default_rng(0)
    for count, length in ((32, 8), (16, 16), (8, 32)):
        ids = generator.integers(0, vocabulary, (count, length))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        feeds["token_type_ids"] = np.zeros_like(ids)
        yield {i.name: feeds[i.name] for i in model.graph.input}


def _vocabulary(model: Any) -> int:
    """How many tokens there are: rows of the table that token ids look up."""
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "input_ids"}
    rows = [tensor.dims[0] for tensor in model.graph.initializer if tensor.name in tables]
    if not rows:
        raise ExportError("no table of token embeddings was found")
    return int(min(rows))


def measure(model: Any, values: list[str], samples: Iterable[Feeds]) -> dict[str, Moments]:
    """The moments of these values of a float model over samples."""
    if not values:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in values)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # it warns of everything the other outputs would have needed
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    runs = [session.run(values, dict(feeds)) for feeds in samples]
    moments = {}
    for name, arrays in zip(values, zip(*runs, strict=True), strict=True):
        rows = np.concatenate([a.reshape(-1, a.shape[-1]) for a in arrays])
        moments[name] = Moments(rows.mean(0), rows.std(0))
    return moments


def _smooth_one(graph: Graph, norm: Any, takers: list[Linear], moments: Moments) -> str:
    """Even out the channels of a layer norm's output, for the matmuls that take it.

    Returns the value that stands for the former output less `moments.mean`.
    """
    spread = np.sqrt(np.mean([np.mean(li.weight**2, axis=1) for li in takers], axis=0))
    d = np.sqrt(np.maximum(spread, 1e-6) / np.maximum(moments.deviation, 1e-6)).astype(np.float32)
    gamma, beta = (graph.constants[name] for name in norm.input[1:])
    norm.input[1] = graph.constant(gamma * d, "gamma")
    norm.input[2] = graph.constant((beta - moments.mean) * d, "beta")
    for linear in takers:
        linear.bias = linear.bias + moments.mean @ linear.weight
        linear.weight = linear.weight / d[:, None]
    back = graph.name("residual")
    inverse = graph.constant(1 / d, "inverse")
    at = next(i for i, node in enumerate(graph.nodes) if node is norm)
    graph.nodes.insert(at + 1, helper.make_node("Mul", [norm.output[0], inverse], [back], back))
    return back


def smooth(graph: Graph, groups: Mapping[str, list[Linear]], moments: Mapping[str, Moments]) -> None:
    """Even out every layer norm that only matmuls and their residuals take."""
    linears = [linear for group in groups.values() for linear in group]
    for x, takers in groups.items():
        norm = graph.made_by(x, "LayerNormalization")
        residuals = [linear for linear in linears if linear.residual == x]
        users = [node for node in graph.consumers[x] if node.op_type != "Shape"]
        everyone = len(users) == len(takers) + len(residuals)
        if norm is None or x not in moments or x in graph.outputs or not everyone:
            continue
        if len(norm.input) != 3 or any(name not in graph.constants for name in norm.input[1:]):
            continue
        back = _smooth_one(graph, norm, takers, moments[x])
        for linear in residuals:
            linear.residual = back
            linear.bias = linear.bias + moments[x].mean
    graph.index()
