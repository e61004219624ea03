"""Recognise attention as exporters write it, and make it one MultiHeadAttention node."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from export.int8.graph import MICROSOFT, Graph, ints

# How query, key, value and the result are transposed; the key so that its product with the query is one of rows.
_PERMS = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3), (0, 2, 1, 3))


@dataclass(frozen=True)
class Heads:
    """A (n, s, hidden) value seen as (n, heads, s, size)."""

    value: str
    heads: int
    size: int
    scale: Any | None
    perm: tuple[int, ...]


def _split_heads(graph: Graph, value: str) -> Heads | None:
    """Read back [Mul or Div] <- Transpose <- Reshape(_, (..., heads, size))."""
    scale = graph.made_by(value, "Mul", "Div")
    if scale is not None:
        value = scale.input[0]
    transpose = graph.made_by(value, "Transpose")
    reshape = graph.made_by(transpose.input[0], "Reshape") if transpose is not None else None
    if reshape is None:
        return None
    shape = graph.constants.get(reshape.input[1])
    if shape is None:
        concat = graph.made_by(reshape.input[1], "Concat")
        if concat is None:
            return None
        tail = [graph.constants[name] for name in concat.input[-2:] if name in graph.constants]
        if len(tail) != 2:
            return None
        shape = np.concatenate(tail)
    heads, size = (int(x) for x in shape[-2:])
    if heads <= 0 or size <= 0:
        return None
    return Heads(reshape.input[0], heads, size, scale, ints(transpose, "perm"))


def _scalar(graph: Graph, value: str, head_size: int) -> float | None:
    """The number a scale's subgraph computes; a slice of a shape is the head size."""
    constant = graph.constants.get(value)
    if constant is not None:
        return float(constant.reshape(())) if constant.size == 1 else None
    node = graph.producer.get(value)
    if node is None:
        return None
    if node.op_type in {"Slice", "Gather"}:
        return float(head_size) if graph.made_by(node.input[0], "Shape") else None
    numbers = [_scalar(graph, name, head_size) for name in node.input]
    known = [number for number in numbers if number is not None]
    return _computed(node.op_type, known) if len(known) == len(numbers) else None


def _computed(op_type: str, numbers: list[float]) -> float | None:
    match op_type, numbers:
        case "Cast", [x]:
            return x
        case "Sqrt", [x]:
            return math.sqrt(x)
        case "Div", [x, y]:
            return x / y
        case "Mul", [x, y]:
            return x * y
        case _:
            return None


def _scale_of(graph: Graph, node: Any | None, head_size: int) -> float | None:
    """By how much a Mul or Div multiplies; 1 where there is none, None where unknown."""
    if node is None:
        return 1.0
    factor = _scalar(graph, node.input[1], head_size)
    if factor is None:
        return None
    return 1 / factor if node.op_type == "Div" else factor


def _padding_mask(graph: Graph, bias: str) -> str | None:
    """The graph's (n, s) mask input, where an additive mask is made from it alone.

    Follows what carries values and refuses any other operation: a mask that also
    depends on positions, a causal one, is not a padding mask.
    """
    inputs = {i.name for i in graph.proto.input}
    found, queue = set(), [bias]
    while queue:
        value = queue.pop()
        node = graph.producer.get(value)
        if value in inputs:
            found.add(value)
        elif node is not None and node.op_type in ("Cast", "Unsqueeze", "Expand", "Reshape"):
            queue.append(node.input[0])
        elif node is not None and node.op_type in ("Sub", "Mul", "Where"):
            queue.extend(node.input)
        elif value not in graph.constants:
            return None
    return "attention_mask" if found == {"attention_mask"} else None


def _mask_inputs(graph: Graph, bias: str) -> tuple[str, str, list[Any]]:
    """(key_padding_mask, attention_bias, nodes to add) for an additive mask."""
    mask = _padding_mask(graph, bias)
    if mask is None:
        return "", bias, []
    name = "int8/key_padding_mask"
    if name in graph.producer:
        return name, "", []
    cast = helper.make_node("Cast", [mask], [name], name, to=TensorProto.INT32)
    return name, "", [cast]


def _fuse_one_attention(graph: Graph, softmax: Any) -> bool:
    """Replace the attention around a softmax by one node, where it is the known form."""
    masked = graph.made_by(softmax.input[0], "Add")
    scores = graph.made_by(masked.input[0], "MatMul", "Div", "Mul") if masked is not None else None
    after = scores if scores is not None and scores.op_type != "MatMul" else None
    if after is not None:
        scores = graph.made_by(after.input[0], "MatMul")
    mixed = graph.sole_consumer(softmax.output[0], "MatMul")
    if masked is None or scores is None or mixed is None or mixed.input[0] != softmax.output[0]:
        return False
    merge = graph.sole_consumer(mixed.output[0], "Transpose")
    out = graph.sole_consumer(merge.output[0], "Reshape") if merge is not None else None
    q, k, v = (_split_heads(graph, name) for name in (*scores.input, mixed.input[1]))
    if out is None or q is None or k is None or v is None or v.scale is not None:
        return False
    perms = (q.perm, k.perm, v.perm, ints(merge, "perm"))
    scales = [s for node in (q.scale, k.scale, after) if (s := _scale_of(graph, node, q.size)) is not None]
    alike = (q.heads, q.size) == (k.heads, k.size) == (v.heads, v.size)
    if perms != _PERMS or not alike or len(scales) != 3:
        return False
    padding, bias, extra = _mask_inputs(graph, masked.input[1])
    attention = helper.make_node(
        "MultiHeadAttention",
        [q.value, k.value, v.value, "", padding, bias],
        [out.output[0]],
        graph.name("Attention"),
        domain=MICROSOFT,
        num_heads=q.heads,
        scale=math.prod(scales),
    )
    graph.replace(out, [*extra, attention])
    return True


def fuse_attention(graph: Graph) -> int:
    """Replace every attention of the known form by MultiHeadAttention; how many."""
    softmaxes = [n for n in graph.nodes if n.op_type == "Softmax"]
    count = sum(_fuse_one_attention(graph, softmax) for softmax in softmaxes)
    graph.prune()
    return count
