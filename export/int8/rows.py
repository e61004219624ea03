"""Write matmuls in 8 bits, with one activation scale for each row.

    s = max|x| / 127                                       (n, s, 1)
    q = QuantizeLinear(x, s, 128, block_size=K)            (n, s, K) uint8
    y = MatMulIntegerToFloat(q, W, 1, column scales) * s   (n, s, N) float32

Weights are int8 with a scale a column; matmuls of the same value share its quantization. What follows a GELU is never
below -0.17, so its rows spend more steps above zero.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from export.int8.graph import MICROSOFT, Graph
from export.int8.linears import Linear

GELU_FLOOR = 0.17  # GELU is never below -0.16998
GELU_ZERO_POINT = 24
ZERO_POINT = 128
LARGE_TABLE = 1 << 20  # values in an embedding table from which it is stored in 8 bits


def to_int8(array: npt.NDArray[Any], axis: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(int8 values, float32 scales): symmetric, one scale for each slice along `axis`."""
    scale = np.abs(array).max(axis=axis, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.rint(array / scale).astype(np.int8), scale.astype(np.float32)


class Writer:
    """Writes the nodes of 8-bit matmuls into a graph; shares constants among them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self._shared: dict[tuple[str, float], str] = {}
        self._zero_points: dict[tuple[str, int], str] = {}

    def add(self, op_type: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """Append a node of one output; the output's name."""
        name = self.graph.name(op_type)
        output = output or name
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return output

    def shared(self, array: npt.NDArray[Any]) -> str:
        """A constant of one element, stored once."""
        key = (str(array.dtype) + str(array.shape), float(array.reshape(-1)[0]))
        if key not in self._shared:
            self._shared[key] = self.graph.constant(array, "constant")
        return self._shared[key]

    def _tokens(self, value: str) -> str:
        """Where the rows of a value come from: values of one origin have the same rows."""
        node = self.graph.producer.get(value)
        rowwise = ("Add", "Sum", "Mul", "Gelu", "LayerNormalization", "MatMul", "MultiHeadAttention")
        if node is None or node.op_type not in rowwise:
            return value
        inputs = [name for name in node.input if name and name not in self.graph.constants]
        return self._tokens(inputs[0]) if inputs else value

    def quantize_rows(self, x: str, width: int) -> tuple[str, str, int]:
        """(uint8 values, scale of each row, zero point) of a value, in the graph."""
        axes = self.shared(np.array([-1]))
        if self.graph.made_by(x, "Gelu"):
            zero_point, steps = GELU_ZERO_POINT, 255 - GELU_ZERO_POINT
            floor = np.float32(GELU_FLOOR * steps / zero_point)
            top = self.add("ReduceMax", [x, axes], keepdims=1)
            top = self.add("Max", [top, self.shared(np.asarray(floor))])
        else:
            zero_point, steps = ZERO_POINT, 127
            top = self.add("ReduceMax", [self.add("Abs", [x]), axes], keepdims=1)
        scale = self.add("Mul", [top, self.shared(np.asarray(np.float32(1 / steps)))])
        key = (self._tokens(x), zero_point)
        if key not in self._zero_points:
            value = numpy_helper.from_array(np.array([zero_point], np.uint8))
            shape = self.add("Shape", [scale])
            self._zero_points[key] = self.add("ConstantOfShape", [shape], value=value)
        inputs = [x, scale, self._zero_points[key]]
        return self.add("QuantizeLinear", inputs, axis=-1, block_size=width), scale, zero_point

    def matmuls(self, group: list[Linear]) -> dict[str, str]:
        """The products of one value, quantized once, with each of its weights.

        Returns the name of the product for each linear's output. A product that
        attention takes as it is has the output's own name.
        """
        rows, scale, zero_point = self.quantize_rows(group[0].x, len(group[0].weight))
        products = {}
        for linear in group:
            weight, columns = to_int8(linear.weight, axis=0)
            inputs = [rows, self.graph.constant(weight, "weight"), self.shared(np.asarray(np.float32(1)))]
            inputs += [self.graph.constant(columns[0], "columns"), self.shared(np.asarray(np.uint8(zero_point)))]
            product = self.add("MatMulIntegerToFloat", inputs, domain=MICROSOFT)
            name = linear.output if linear.attention else None
            products[linear.output] = self.add("Mul", [product, scale], name)
        return products

    def sums(self, linear: Linear, product: str) -> None:
        """What is added to a product; nothing where attention adds the bias."""
        if linear.attention is None:
            parts = [product, linear.residual] if linear.residual else [product]
            self.add("Sum", [*parts, self.graph.constant(linear.bias, "bias")], linear.output)

    def attention(self, node: Any, parts: list[Linear]) -> None:
        """An attention node, with the biases of its query, key and value if they are parts."""
        if parts:
            node.input[3] = self.graph.constant(np.concatenate([li.bias for li in parts]), "bias")
        self.nodes.append(node)


def write_linears(graph: Graph, groups: Mapping[str, list[Linear]]) -> None:
    """Replace the linears' nodes by their 8-bit form."""
    linears = [linear for group in groups.values() for linear in group]
    by_matmul = {id(li.matmul): groups[li.x] for li in linears}
    by_last = {id(li.last): li for li in linears}
    by_output = {li.output: li for li in linears if li.attention}
    absorbed = {id(node) for li in linears for node in li.absorbed}
    writer, products = Writer(graph), {}
    for node in graph.nodes:
        group = by_matmul.get(id(node))
        if group and group[0].output not in products:
            products.update(writer.matmuls(group))
        if linear := by_last.get(id(node)):
            writer.sums(linear, products[linear.output])
        elif node.op_type == "MultiHeadAttention":
            parts = [by_output.get(name) for name in node.input[:3]]
            writer.attention(node, [part for part in parts if part])
        elif not group and id(node) not in absorbed:
            writer.nodes.append(node)
    graph.nodes = writer.nodes
    graph.index()


def quantize_tables(graph: Graph) -> None:
    """Store large embedding tables as int8, a scale for each row."""
    for node in [n for n in graph.nodes if n.op_type == "Gather"]:
        table = graph.constants.get(node.input[0])
        if table is None or table.ndim != 2 or table.size < LARGE_TABLE or table.dtype != np.float32:
            continue
        values, scales = to_int8(table, axis=1)
        writer = Writer(graph)
        rows = writer.add("Gather", [graph.constant(values, "table"), node.input[1]])
        scale = writer.add("Gather", [graph.constant(scales, "scales"), node.input[1]])
        rows = writer.add("Cast", [rows], to=TensorProto.FLOAT)
        writer.add("Mul", [rows, scale], node.output[0])
        graph.replace(node, writer.nodes)
