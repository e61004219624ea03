"""What TensorRT wants to be told: where its engines are kept, and for which shapes they are built.

An engine takes minutes to build and is kept in a folder. TensorRT names it by the graph and not by the weights, so
every model has a folder of its own there, named by its digest: another model of the same form must not meet it.

The half precision variant is the fp32 graph with `trt_fp16_enable`: the fp16 graph is fused into operators that only
ONNX Runtime's own CUDA provider has, and TensorRT would leave them to it.
"""

import contextlib
import importlib
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from export.bundle import Bundle, Variant
from export.errors import ProviderError
from export.runtime.buckets import Buckets, Shape

CACHE = Path("var/tensorrt")
REMEDY = "install `faqwire[cuda]` and `tensorrt-cu13<11` on a machine with an NVIDIA driver"

_BUSY_TOKENS = 32  # what most messages are shorter than


def preload() -> None:
    """Load TensorRT's libraries where they were installed as a wheel, which is on no search path."""
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt_libs")  # importing it loads them


def engine_options(
    bundle: Bundle, variant: Variant, file: Path, *, cache: Path, buckets: Buckets | None
) -> dict[str, str]:
    """Options of the provider for one model.

    Args:
        bundle: what the model belongs to.
        variant: which precision it shall run in.
        file: the graph to build engines of.
        cache: the folder of all engines; the model's own is made in it.
        buckets: the shapes to build for, or None for those that come.

    Raises:
        ProviderError: the folder cannot be made.
    """
    folder = cache / f"{bundle.manifest.files[file.name][:16]}-onnxruntime-{ort.__version__}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ProviderError(
            f"{folder} cannot be made ({exc.strerror}); set `tensorrt_cache` to a folder that can be written"
        ) from exc
    options = {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_fp16_enable": str(variant == "fp16"),
    }
    if buckets is None:
        return options
    names = _inputs(file)
    rows, tokens = buckets.rows[-1], buckets.tokens[-1]
    return options | {
        "trt_profile_min_shapes": _profile(names, (1, 1)),
        # A busy server's batches: as many messages as go, of the usual length.
        "trt_profile_opt_shapes": _profile(names, (rows, min(tokens, _BUSY_TOKENS))),
        "trt_profile_max_shapes": _profile(names, (rows, tokens)),
    }


def _inputs(file: Path) -> list[str]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return [i.name for i in session.get_inputs()]


def _profile(names: Sequence[str], shape: Shape) -> str:
    return ",".join(f"{name}:{shape[0]}x{shape[1]}" for name in names)
