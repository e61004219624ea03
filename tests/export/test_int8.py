"""The int8 variant: as near to fp32 as promised, and the same whatever it is batched with."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.bundle import Bundle
from export.golden import SENTENCES
from export.int8 import quantize
from export.runtime.bi_encoder import BiEncoder
from export.runtime.session import CPU, Device


@pytest.fixture(scope="module")
def int8(bundle: Bundle) -> BiEncoder:
    """The default model's int8 variant."""
    return BiEncoder(bundle, "int8", Device(CPU))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=16), st.data())
def test_neighbours_do_not_change_a_vector(int8: BiEncoder, texts: list[str], data: st.DataObject) -> None:
    """A message's vector is the same alone and in any batch of up to 16, in any order."""
    position = data.draw(st.integers(0, len(texts) - 1))
    tokens = [int8.tokenize(text) for text in texts]
    together = int8.run(tokens)[position]
    alone = int8.run([tokens[position]])[0]
    assert float(alone @ together) >= 0.9999


def test_every_layer_is_in_8_bits(bundle: Bundle) -> None:
    """All six products of all six layers are 8-bit ones, and attention and GELU are single nodes."""
    operations = [node.op_type for node in onnx.load(bundle.variant_path("int8")).graph.node]
    assert operations.count("MatMulIntegerToFloat") == 36
    assert operations.count("MultiHeadAttention") == 6
    assert operations.count("Gelu") == 6
    assert "MatMul" not in operations
    assert bundle.variant_path("int8").stat().st_size < 30e6


def test_unknown_shapes_stay_float(tmp_path: object) -> None:
    """A graph without anything recognisable is returned as it computes, not half rewritten."""
    x = onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["n", "s"])
    y = onnx.helper.make_tensor_value_info("vectors", onnx.TensorProto.FLOAT, ["n", "s"])
    table = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "table")
    nodes = [
        onnx.helper.make_node("Cast", ["input_ids"], ["vectors"], to=onnx.TensorProto.FLOAT),
    ]
    graph = onnx.helper.make_graph(nodes, "odd", [x], [y], [table])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    assert [node.op_type for node in quantize(model).graph.node] == ["Cast"]
