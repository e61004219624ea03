"""An ONNX graph that can be rewritten: constants as arrays, edges indexed."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

MICROSOFT = "com.microsoft"


class Graph:
    """An ONNX graph with its constants as arrays and its edges indexed.

    `producer` and `consumers` describe the graph as of the last `index()`.
    """

    def __init__(self, model: Any) -> None:
        self.proto = model.graph
        self.nodes: list[Any] = []
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)
        self.outputs = {o.name for o in model.graph.output}
        self._resolve_identities()
        self._serial = 0
        self.index()

    def _resolve_identities(self) -> None:
        """Take out Identity nodes: exporters share equal constants through them."""
        alias: dict[str, str] = {}
        for node in self.nodes:
            for i, name in enumerate(node.input):
                node.input[i] = alias.get(name, name)
            if node.op_type == "Identity" and node.output[0] not in self.outputs:
                alias[node.output[0]] = node.input[0]
        self.nodes = [node for node in self.nodes if not alias.keys() & set(node.output)]

    def index(self) -> None:
        """Rebuild `producer` and `consumers` from the nodes."""
        self.producer = {out: node for node in self.nodes for out in node.output}
        self.consumers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.consumers[name].append(node)

    def name(self, stem: str) -> str:
        """A name that no other value of the graph has."""
        self._serial += 1
        return f"int8/{stem}_{self._serial}"

    def constant(self, array: npt.NDArray[Any], stem: str) -> str:
        """Store an array; its name."""
        name = self.name(stem)
        self.constants[name] = array
        return name

    def made_by(self, value: str, *op_types: str) -> Any | None:
        """The node that makes `value`, where it is one of these types."""
        node = self.producer.get(value)
        return node if node is not None and node.op_type in op_types else None

    def sole_consumer(self, value: str, *op_types: str) -> Any | None:
        """The only user of `value`, where it has one and of these types."""
        users = self.consumers[value]
        if len(users) != 1 or value in self.outputs or users[0].op_type not in op_types:
            return None
        return users[0]

    def replace(self, old: Any, new: Iterable[Any]) -> None:
        """Put nodes in the place of one; what it alone needed is dropped by `prune`."""
        at = next(i for i, node in enumerate(self.nodes) if node is old)
        self.nodes[at : at + 1] = new
        self.index()

    def prune(self) -> None:
        """Drop nodes and constants that no output needs."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {k: v for k, v in self.constants.items() if k in needed}
        self.index()

    def write(self) -> None:
        """Store nodes and constants back in the model."""
        del self.proto.node[:], self.proto.initializer[:], self.proto.value_info[:]
        self.proto.node.extend(self.nodes)
        self.proto.initializer.extend(
            numpy_helper.from_array(np.asarray(v, order="C"), k) for k, v in self.constants.items()
        )


def ints(node: Any, attribute: str) -> tuple[int, ...]:
    """A node's attribute of several integers; empty where it has none."""
    return next((tuple(a.ints) for a in node.attribute if a.name == attribute), ())
