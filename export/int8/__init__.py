"""The 8-bit form of a BERT-like ONNX graph whose vectors do not depend on the batch.

ONNX Runtime's own dynamic quantization takes one activation scale for a whole tensor, so the neighbours of a message in
a batch change its vector. Here every token (row) has its own scale, computed in the graph from that row alone
(`rows`), after the channels of layer norms have been evened out (`smoothing`).

The float rest is arranged for ONNX Runtime's CPU kernels: attention is one MultiHeadAttention (`attention`), and sums
are written `Sum`: from `Add`, ONNX Runtime makes BiasGelu and SkipLayerNormalization as a session loads, which are
several times slower on a CPU than their separate steps.

Everything is found by the shape of the graph; what does not match stays float. `bench/results` has the table of what
was tried.
"""

from collections.abc import Iterable
from typing import Any

import onnx
from onnx import helper

from export.errors import ExportError
from export.int8.attention import fuse_attention
from export.int8.gelu import fuse_gelu
from export.int8.graph import MICROSOFT, Graph
from export.int8.linears import find_linears, join_attention
from export.int8.rows import quantize_tables, write_linears
from export.int8.smoothing import Feeds, measure, random_samples, smooth

OPSET, IR_VERSION = 21, 10  # the first with QuantizeLinear in blocks
OLDEST_OPSET = 18  # the first whose reductions all take axes as an input; nothing used here changed since


def quantize(fp32: Any, samples: Iterable[Feeds] | None = None) -> Any:
    """The 8-bit form of a BERT-like model; inputs and outputs stay as they are.

    Args:
        fp32: the float model, of opset 18 or later.
        samples: inputs to measure layer norms with; None means random tokens.

    Raises:
        ExportError: the model is of an older opset.
    """
    model = onnx.ModelProto()
    model.CopyFrom(fp32)
    _set_versions(model)
    graph = Graph(model)
    fuse_gelu(graph)
    fuse_attention(graph)
    groups = find_linears(graph)
    norms = [x for x in groups if graph.made_by(x, "LayerNormalization")]
    moments = measure(fp32, norms, random_samples(fp32) if samples is None else samples)
    join_attention(graph, groups)
    smooth(graph, groups, moments)
    write_linears(graph, groups)
    quantize_tables(graph)
    keep_sums_apart(graph)
    graph.prune()
    graph.write()
    return model


def keep_sums_apart(graph: Graph) -> None:
    """Write Add as Sum where ONNX Runtime would fuse it with what follows."""
    for node in graph.nodes:
        if node.op_type == "Add" and graph.sole_consumer(node.output[0], "LayerNormalization", "Gelu"):
            node.op_type = "Sum"


def _set_versions(model: Any) -> None:
    """Declare the opsets that the 8-bit form needs."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 0) < OLDEST_OPSET:
        raise ExportError(
            f"the int8 variant needs opset {OLDEST_OPSET} or later, and the model has {versions.get('', 0)}"
        )
    versions[""] = max(versions[""], OPSET)
    versions.setdefault(MICROSOFT, 1)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*entry) for entry in versions.items())
    model.ir_version = max(model.ir_version, IR_VERSION)
