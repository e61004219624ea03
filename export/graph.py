"""Bring an exported ONNX graph into the bundle's form: named inputs, one output, and fp16 fused for CUDA."""

import contextlib
import io
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from export.bundle import Kind
from export.errors import ExportError

INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


def shape_outputs(model: Any, kind: Kind, *, normalised: bool) -> Any:
    """Leave one output: `vectors` (n, dim), unit length, or `logits` (n,).

    Args:
        model: an `onnx.ModelProto` by optimum: outputs `sentence_embedding` or `logits` among others.
        kind: what it is.
        normalised: whether the graph already normalises its vectors.

    Raises:
        ExportError: the graph lacks the output or wants an input that nobody can feed.
    """
    graph = model.graph
    unknown = {i.name for i in graph.input} - INPUTS
    if unknown:
        raise ExportError(f"the exported model wants inputs that faqwire does not know: {', '.join(sorted(unknown))}")
    wanted, name = ("sentence_embedding", "vectors") if kind == "bi-encoder" else ("logits", "logits")
    output = next((o for o in graph.output if o.name == wanted), None)
    if output is None:
        raise ExportError(f"the exported model has no output {wanted}; it has {[o.name for o in graph.output]}")
    dims = output.type.tensor_type.shape.dim
    if kind == "bi-encoder":
        dimension = _dimension(model)
        if normalised:
            _rename(graph, wanted, name)
        else:
            _normalise(graph, wanted, name)
        shape: list[str | int] = ["batch_size", dimension]
    else:
        if len(dims) != 2:
            raise ExportError("the exported cross-encoder does not give one logit a pair")
        graph.initializer.append(helper.make_tensor("faqwire_flat", TensorProto.INT64, [1], [-1]))
        _rename(graph, wanted, "faqwire_logits_2d")
        graph.node.append(helper.make_node("Reshape", ["faqwire_logits_2d", "faqwire_flat"], [name]))
        shape = ["batch_size"]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.checker.check_model(model)
    return model


def _dimension(model: Any) -> int | str:
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        if value.name == "sentence_embedding":
            last = value.type.tensor_type.shape.dim[-1]
            return int(last.dim_value) or "dimension"
    return "dimension"


def _normalise(graph: Any, source: str, target: str) -> None:
    graph.node.append(helper.make_node("LpNormalization", [source], [target], name=f"{source}_to_unit", axis=-1, p=2))


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for position, value in enumerate(names):
                if value == old:
                    names[position] = new


def to_fp16(fp32: Path, target: Path, kind: Kind, *, heads: int, hidden: int) -> None:
    """Fuse attention, layer normalisation and GELU for CUDA, and make the weights half precision.

    Inputs and outputs keep their types.

    Args:
        fp32: the plain fp32 graph.
        target: where the fp16 graph is written.
        kind: what the graph is.
        heads: attention heads of a layer.
        hidden: size of the hidden state.
    """
    from onnxruntime.transformers import optimizer

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it could not infer, which nobody can act on
        # opt_level 1 folds constants, without which attention is not recognised; higher ones bake in what fits the CPU.
        fused = optimizer.optimize_model(str(fp32), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=1)
        fused.convert_float_to_float16(keep_io_types=True)
    graph = fused.model.graph
    if kind == "bi-encoder":
        # Half precision leaves lengths within a thousandth of 1; the contract is unit vectors.
        name = graph.output[0].name
        _rename(graph, name, "faqwire_half_unit")
        _normalise(graph, "faqwire_half_unit", name)
    fused.save_model_to_file(str(target))
