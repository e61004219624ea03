"""Recognise GELU as exporters write it, and make it one node."""

from typing import Any

from onnx import helper

from export.int8.graph import Graph


def _split_constant(graph: Graph, node: Any) -> tuple[str, float] | None:
    """(value, scalar) of a two-input node with one scalar constant."""
    for value, other in (node.input, reversed(node.input)):
        constant = graph.constants.get(other)
        if constant is not None and constant.size == 1 and value not in graph.constants:
            return value, float(constant.reshape(()))
    return None


def _is_by(graph: Graph, node: Any | None, number: float) -> str | None:
    """The other input of a node one of whose inputs is this scalar constant."""
    split = _split_constant(graph, node) if node is not None else None
    return split[0] if split and abs(split[1] - number) < 1e-4 else None


def fuse_gelu(graph: Graph) -> int:
    """Write x * (1 + erf(x / sqrt 2)) * 0.5 as one node each; how many."""
    count = 0
    for erf in [n for n in graph.nodes if n.op_type == "Erf"]:
        x = _is_by(graph, graph.made_by(erf.input[0], "Div"), 2**0.5)
        plus = graph.sole_consumer(erf.output[0], "Add")
        if x is None or plus is None or _is_by(graph, plus, 1.0) is None:
            continue
        times = graph.sole_consumer(plus.output[0], "Mul")
        half = graph.sole_consumer(times.output[0], "Mul") if times is not None and x in times.input else None
        if half is None or _is_by(graph, half, 0.5) is None:
            continue
        gelu = helper.make_node("Gelu", [x], [half.output[0]], graph.name("Gelu"))
        graph.replace(half, [gelu])
        count += 1
    graph.prune()
    return count
