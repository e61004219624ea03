"""Which provider and which variant run, and no silent fallback."""

import ctypes
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime as ort
import pytest

from export.bundle import Bundle, Parity, Variant, VariantInfo
from export.errors import BundleError, ProviderError
from export.runtime import session
from export.runtime.choices import Provider, VariantChoice
from export.runtime.session import (
    CPU,
    CUDA,
    TENSORRT,
    Device,
    choose_variant,
    find_device,
    gpu_count,
    has_fast_int8,
    open_session,
    variant_file,
)

Machine = Callable[..., None]


def with_variants(bundle: Bundle, *variants: Variant) -> Bundle:
    """The bundle as if it had been exported in these variants."""
    info = VariantInfo(file="x", parity=Parity(mean=1, min=1, batch_min=1, provider=CPU))
    manifest = msgspec.structs.replace(bundle.manifest, variants=dict.fromkeys(variants, info))
    return replace(bundle, manifest=manifest)


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes | None) -> None:
    """What ONNX Runtime cannot load is a sentence with its path."""
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded by ONNX Runtime"):
        open_session(path, Device(CPU), threads=1)


class Loaded:
    """A session as ONNX Runtime gives it when providers that were asked for cannot be loaded: with the others."""

    def __init__(self, *have: str) -> None:
        self._have = list(have)
        self.asked: list[tuple[str, dict[str, str]]] = []

    def __call__(self, *_: object, providers: list[tuple[str, dict[str, str]]], **__: object) -> "Loaded":
        """Stands for the class."""
        self.asked = providers
        return self

    def get_providers(self) -> list[str]:
        """Those that could be loaded, whatever was asked for."""
        return self._have


@pytest.mark.parametrize(
    ("asked", "have", "missing"),
    [(CUDA, [CPU], CUDA), (TENSORRT, [CUDA, CPU], TENSORRT), (TENSORRT, [TENSORRT, CPU], CUDA)],
)
def test_a_silent_fallback_is_an_error(
    monkeypatch: pytest.MonkeyPatch, asked: str, have: list[str], missing: str
) -> None:
    """A session that quietly runs elsewhere than was settled on is refused, and what is missing is named."""
    monkeypatch.setattr(ort, "InferenceSession", Loaded(*have))
    with pytest.raises(ProviderError, match=f"^{missing} could not be loaded, although a GPU is there"):
        open_session(Path("model.onnx"), Device(asked), threads=1)


def test_sessions_never_fall_back_later(bundle: Bundle) -> None:
    """ONNX Runtime's own fallback, which prints a line and goes on on the CPU, is off."""
    assert open_session(bundle.variant_path("fp32"), Device(CPU), threads=1)._enable_fallback is False


def test_options_reach_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider in use gets the device's options and its own; those behind it get the number of the GPU."""
    session = Loaded(TENSORRT, CUDA, CPU)
    monkeypatch.setattr(ort, "InferenceSession", session)
    options = {"device_id": "1", "trt_builder_optimization_level": "5"}
    open_session(Path("model.onnx"), Device(TENSORRT, options=options), threads=1, own={"trt_fp16_enable": "True"})
    assert session.asked == [(TENSORRT, options | {"trt_fp16_enable": "True"}), (CUDA, {"device_id": "1"}), (CPU, {})]
    open_session(Path("model.onnx"), Device(CUDA, options={"gpu_mem_limit": "9"}), threads=1)
    assert session.asked == [(CUDA, {"gpu_mem_limit": "9"}), (CPU, {})]
    open_session(Path("model.onnx"), Device(CPU), threads=1)
    assert session.asked == [(CPU, {})]


# As ONNX Runtime's libraries word it, its place in their source included.
@pytest.mark.parametrize(
    ("provider", "said", "sentence"),
    [
        (
            CUDA,
            '/src/options.h:78 Status Parse(const ProviderOptions&) Unknown provider option: "arena".',
            'CUDAExecutionProvider refuses the provider option "arena" = "7": Unknown provider option: "arena".',
        ),
        (
            TENSORRT,
            "/src/state.cc:1033 Factory Create(const SessionOptions&) Invalid TensorRT EP option: arena\n",
            'TensorrtExecutionProvider refuses the provider option "arena" = "7": Invalid TensorRT EP option: arena',
        ),
        (
            CUDA,
            "CUDA failure 35: old driver",
            (
                "CUDAExecutionProvider cannot be used: CUDA failure 35: old driver; install `faqwire[cuda]` on a "
                'machine with an NVIDIA driver, or set the provider to "cpu"'
            ),
        ),
    ],
)
def test_what_a_provider_refuses(monkeypatch: pytest.MonkeyPatch, provider: str, said: str, sentence: str) -> None:
    """An option that it does not take is named with its value; anything else is said with what to install."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    with pytest.raises(ProviderError) as caught:
        open_session(Path("model.onnx"), Device(provider, options={"arena": "7"}), threads=1)
    assert str(caught.value) == sentence


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Say how many GPUs the driver reports, and whether this onnxruntime can use them."""

    def say(gpus: int, *, cuda: bool, tensorrt: bool = False) -> None:
        providers = [TENSORRT] * tensorrt + [CUDA] * cuda + [CPU]
        monkeypatch.setattr(session, "gpu_count", lambda: gpus)
        monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
        monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)

    return say


@pytest.mark.parametrize(
    ("asked", "gpus", "cuda", "provider", "degraded"),
    [
        ("cpu", 1, True, CPU, None),
        ("auto", 1, True, CUDA, None),
        ("cuda", 1, True, CUDA, None),
        ("auto", 0, True, CPU, None),
        ("auto", 0, False, CPU, None),
        ("auto", 1, False, CPU, "this onnxruntime has no CUDA provider (onnxruntime-gpu has one)"),
    ],
)
def test_the_device_is_settled(
    machine: Machine, asked: Provider, gpus: int, *, cuda: bool, provider: str, degraded: str | None
) -> None:
    """By "auto" it is a GPU where there is one, and says why where it cannot; "cpu" is the CPU."""
    machine(gpus, cuda=cuda)
    device = find_device(asked)
    assert device == Device(provider, degraded)
    assert device.name == ("cuda" if provider == CUDA else "cpu")


@pytest.mark.parametrize(
    ("gpus", "cuda", "words"),
    [(0, True, "the CUDA driver reports no GPU"), (1, False, "this onnxruntime has no CUDA provider")],
)
def test_cuda_that_is_absent_is_an_error(machine: Machine, gpus: int, *, cuda: bool, words: str) -> None:
    """Asking for CUDA where there is none is one sentence that says why and what to do, and never the CPU."""
    machine(gpus, cuda=cuda)
    with pytest.raises(ProviderError) as caught:
        find_device("cuda")
    assert str(caught.value) == (
        f'provider "cuda" was asked for but {words}'
        f"{'' if gpus == 0 else ' (onnxruntime-gpu has one)'}; install `faqwire[cuda]` on a machine with an NVIDIA "
        'driver, or set the provider to "cpu"'
    )


def test_tensorrt_is_taken_only_when_it_is_asked_for(machine: Machine) -> None:
    """By "auto" it is CUDA, also where TensorRT is there."""
    machine(1, cuda=True, tensorrt=True)
    assert find_device("auto").provider == CUDA
    device = find_device("tensorrt", tensorrt_cache=Path("engines"))
    assert device == Device(TENSORRT, tensorrt_cache=Path("engines"))
    assert (device.name, device.memory, device.fixed_shapes) == ("tensorrt", "cuda", True)


@pytest.mark.parametrize(
    ("gpus", "words"),
    [(0, "the CUDA driver reports no GPU"), (1, "this onnxruntime has no TensorRT provider (onnxruntime-gpu has one)")],
)
def test_tensorrt_that_is_absent_is_an_error(machine: Machine, gpus: int, words: str) -> None:
    """Asking for TensorRT where there is none is one sentence that says why and what to do, and never CUDA."""
    machine(gpus, cuda=True)
    with pytest.raises(ProviderError) as caught:
        find_device("tensorrt")
    assert str(caught.value) == (
        f'provider "tensorrt" was asked for but {words}; install `faqwire[cuda]` and `tensorrt-cu13<11` on a machine '
        'with an NVIDIA driver, or set the provider to "cpu"'
    )


def test_options_belong_to_a_gpu(machine: Machine) -> None:
    """They go with the device, and lapse on the CPU, which takes none."""
    options = {"device_id": "1", "gpu_mem_limit": "1000000000"}
    machine(2, cuda=True)
    device = find_device("auto", options=options)
    assert (device.options, device.device_id) == (options, 1)
    machine(0, cuda=True)
    assert find_device("auto", options=options) == find_device("cpu", options=options) == Device(CPU)


@pytest.mark.parametrize("device_id", ["2", "-1", "first", ""])
def test_a_gpu_that_is_not_there(machine: Machine, device_id: str) -> None:
    """A device that the driver does not have is named before anything is loaded."""
    machine(2, cuda=True)
    with pytest.raises(ProviderError, match=f'"device_id" is "{device_id}" and the CUDA driver reports 2 GPUs'):
        find_device("cuda", options={"device_id": device_id})


@pytest.mark.parametrize("option", ["trt_fp16_enable", "trt_engine_cache_path", "enable_cuda_graph"])
def test_options_that_are_not_the_operators(machine: Machine, option: str) -> None:
    """What faqwire decides itself, or would answer wrongly with, cannot be set, wherever it runs."""
    machine(0, cuda=False)
    with pytest.raises(ProviderError, match=f'provider option "{option}" cannot be set: .*; leave it out'):
        find_device("auto", options={option: "1"})


class Driver:
    """NVIDIA's driver as far as counting goes."""

    def __init__(self, started: int, gpus: int) -> None:
        self._started, self._gpus = started, gpus

    def cuInit(self, _: int) -> int:  # noqa: N802
        """0 where the driver starts."""
        return self._started

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        """Writes how many devices there are."""
        count._obj.value = self._gpus
        return 0


@pytest.mark.parametrize(("driver", "count"), [(Driver(0, 2), 2), (Driver(0, 0), 0), (Driver(100, 2), 0), (None, 0)])
def test_gpus_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch, driver: Driver | None, count: int) -> None:
    """Without a driver, or with one that does not start, there is no GPU."""

    def load(_: str) -> Driver:
        if driver is None:
            raise OSError("no such library")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert gpu_count() == count


@pytest.mark.parametrize(
    ("flags", "fast"),
    [("flags : fpu avx2 avx512f", False), ("flags : avx512_vnni", True), ("flags : avx_vnni", True), ("asimddp", True)],
)
def test_fast_int8_is_read_off_the_cpu(monkeypatch: pytest.MonkeyPatch, flags: str, *, fast: bool) -> None:
    """Linux tells by the CPU's flags whether 8-bit products are fast; an unknown system is taken to be slow."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor : 0\n{flags}\n")
    assert has_fast_int8() is fast
    monkeypatch.setattr(platform, "system", lambda: "Plan 9")
    assert has_fast_int8() is False


@pytest.mark.parametrize(
    ("variants", "provider", "fast", "choice", "expected"),
    [
        (("fp32", "int8", "fp16"), CPU, True, "auto", "int8"),
        (("fp32", "int8", "fp16"), CPU, False, "auto", "fp32"),
        (("fp32", "int8", "fp16"), CUDA, True, "auto", "fp16"),
        (("fp32", "fp16"), CPU, True, "auto", "fp32"),
        (("fp32", "int8"), CUDA, True, "auto", "fp32"),
        (("fp32", "int8"), CPU, False, "int8", "int8"),
        (("fp32", "int8"), CUDA, True, "fp32", "fp32"),
        (("fp32", "int8"), TENSORRT, True, "auto", "fp16"),
        (("fp32",), TENSORRT, True, "fp16", "fp16"),
        (("fp32", "fp16"), TENSORRT, True, "fp32", "fp32"),
    ],
)
def test_the_variant_fits_the_device(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    variants: tuple[Variant, ...],
    provider: str,
    *,
    fast: bool,
    choice: VariantChoice,
    expected: str,
) -> None:
    """fp16 on GPUs, int8 on a CPU that is fast at it, fp32 elsewhere and where they are missing, or what was asked."""
    monkeypatch.setattr(session, "has_fast_int8", lambda: fast)
    found = choose_variant(with_variants(bundle, *variants), Device(provider), choice)
    assert found == expected


def test_half_precision_in_tensorrt_starts_from_fp32(bundle: Bundle) -> None:
    """TensorRT cannot run the operators that the fp16 graph is fused into, and makes half precision itself."""
    assert variant_file(bundle, "fp16", Device(TENSORRT)) == bundle.variant_path("fp32")
    assert variant_file(bundle, "fp16", Device(CUDA)) == bundle.variant_path("fp16")


def test_a_variant_that_is_not_there_is_not_replaced(bundle: Bundle) -> None:
    """Asking for a variant that was not exported is an error, and never another variant."""
    with pytest.raises(BundleError, match="has no fp16 variant"):
        choose_variant(with_variants(bundle), Device(CPU), "fp16")
