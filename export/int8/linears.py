"""Find the matmuls that can be in 8 bits, with what is added to each."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.int8.graph import Graph

Floats = npt.NDArray[np.float32]


@dataclass
class Linear:
    """A matmul by a constant with what is added to it: x @ weight + bias [+ residual].

    `matmul` computes the product and `last` the value that the rest of the graph
    uses; `absorbed` are the nodes that the 8-bit form replaces, `last` aside.
    Where `attention` is a node, `last` is an input of it and it adds the bias.
    """

    matmul: Any
    weight: npt.NDArray[Any]
    bias: npt.NDArray[Any]
    last: Any
    absorbed: list[Any]
    residual: str | None = None
    attention: Any | None = None

    @property
    def x(self) -> str:
        """The value that the weight multiplies."""
        return str(self.matmul.input[0])

    @property
    def output(self) -> str:
        """The value that the rest of the graph uses."""
        return str(self.last.output[0])


def _other(node: Any, value: str) -> str:
    return str(node.input[1] if node.input[0] == value else node.input[0])


def _linear(graph: Graph, matmul: Any) -> Linear | None:
    """A MatMul by a constant matrix, with the bias and residual that follow."""
    weight = graph.constants.get(matmul.input[1])
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return None
    linear = Linear(matmul, weight, np.zeros(weight.shape[1], np.float32), matmul, [])
    while linear.residual is None and (add := graph.sole_consumer(linear.output, "Add")):
        other = _other(add, linear.output)
        constant = graph.constants.get(other)
        if constant is not None and constant.shape == linear.bias.shape:
            linear.bias = linear.bias + constant
        elif constant is None and graph.sole_consumer(add.output[0], "LayerNormalization"):
            linear.residual = other
        else:
            break
        linear.absorbed.append(linear.last)
        linear.last = add
    return linear


def find_linears(graph: Graph) -> dict[str, list[Linear]]:
    """Every matmul that can be in 8 bits, by the value it takes."""
    groups: dict[str, list[Linear]] = defaultdict(list)
    for node in graph.nodes:
        linear = _linear(graph, node) if node.op_type == "MatMul" else None
        if linear is not None:
            groups[linear.x].append(linear)
    return dict(groups)


def join_attention(graph: Graph, groups: Mapping[str, list[Linear]]) -> None:
    """Set `attention` of the linears that are all of a node's query, key and value."""
    by_output = {li.output: li for group in groups.values() for li in group if li.residual is None}
    for node in graph.nodes:
        if node.op_type != "MultiHeadAttention":
            continue
        parts = [by_output[name] for name in node.input[:3] if name in by_output]
        if len(parts) == 3 and all(graph.sole_consumer(part.output, node.op_type) for part in parts):
            for part in parts:
                part.attention = node
