"""What TensorRT is told, and what is said where it is absent. No engine is built: that takes a GPU."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import msgspec
import onnxruntime as ort
import pytest

from export.bundle import Bundle
from export.errors import ProviderError
from export.runtime import tensorrt
from export.runtime.buckets import Buckets
from export.runtime.session import TENSORRT, Device, gpu_count, open_session
from export.runtime.tensorrt import engine_options

BUCKETS = Buckets.up_to(max_rows=16, max_tokens=128)


def test_engines_are_built_for_the_buckets(bundle: Bundle, tmp_path: Path) -> None:
    """The range of shapes ends with the grid, for the inputs that the graph really has."""
    file = bundle.variant_path("fp32")
    options = engine_options(bundle, "fp16", file, cache=tmp_path, buckets=BUCKETS)
    assert options["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert options["trt_profile_opt_shapes"] == "input_ids:16x32,attention_mask:16x32"
    assert options["trt_profile_max_shapes"] == "input_ids:16x128,attention_mask:16x128"
    assert options["trt_fp16_enable"] == "True"
    assert "trt_profile_min_shapes" not in engine_options(bundle, "fp32", file, cache=tmp_path, buckets=None)


def test_engines_of_a_model_have_a_folder_of_their_own(bundle: Bundle, tmp_path: Path) -> None:
    """The same graph with other weights, or another ONNX Runtime, does not meet engines that are not its own."""
    file = bundle.variant_path("fp32")
    folder = Path(
        engine_options(bundle, "fp32", file, cache=tmp_path / "engines", buckets=None)["trt_engine_cache_path"]
    )
    assert folder.is_dir()
    assert folder.parent == tmp_path / "engines"
    assert folder.name.endswith(ort.__version__)
    files = bundle.manifest.files | {file.name: "0" * 64}
    retrained = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, files=files))
    other = engine_options(retrained, "fp32", file, cache=tmp_path / "engines", buckets=None)["trt_engine_cache_path"]
    assert Path(other) != folder


def test_a_cache_that_cannot_be_made_is_named(bundle: Bundle, tmp_path: Path) -> None:
    """A file in the folder's place is one sentence with its path."""
    (tmp_path / "engines").write_bytes(b"")
    with pytest.raises(ProviderError, match=r"engines/.* cannot be made .*; set `tensorrt_cache` to a folder"):
        engine_options(bundle, "fp32", bundle.variant_path("fp32"), cache=tmp_path / "engines", buckets=None)


def test_libraries_from_a_wheel_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's wheel loads its libraries when it is imported; without it nothing is loaded, and nothing is wrong."""
    monkeypatch.setitem(sys.modules, "tensorrt_libs", None)
    tensorrt.preload()
    monkeypatch.setitem(sys.modules, "tensorrt_libs", ModuleType("tensorrt_libs"))
    tensorrt.preload()


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
@pytest.mark.skipif(TENSORRT not in ort.get_available_providers(), reason="this onnxruntime has no TensorRT provider")
def test_libraries_that_are_absent_are_told_how_to_get(bundle: Bundle) -> None:
    """What ONNX Runtime raises without TensorRT's libraries is one sentence that says what to install."""
    with pytest.raises(ProviderError) as caught:
        open_session(bundle.variant_path("fp32"), Device(TENSORRT), threads=1)
    [sentence] = str(caught.value).splitlines()
    assert sentence.startswith("TensorrtExecutionProvider cannot be used: Please install TensorRT libraries")
    assert "install `faqwire[cuda]` and `tensorrt-cu13<11`" in sentence
