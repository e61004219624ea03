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
from export.runtime.session import (
    CPU,
    CUDA,
    Device,
    Provider,
    VariantChoice,
    choose_variant,
    find_device,
    gpu_count,
    has_fast_int8,
    open_session,
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


class FellBack:
    """A session as ONNX Runtime gives it when the provider that was asked for cannot be loaded."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def get_providers(self) -> list[str]:
        """The CPU alone, whatever was asked for."""
        return [CPU]


def test_a_silent_fallback_is_an_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that quietly runs on the CPU although CUDA was settled on is refused."""
    monkeypatch.setattr(ort, "InferenceSession", FellBack)
    with pytest.raises(ProviderError, match="could not be loaded, although a GPU is there"):
        open_session(bundle.variant_path("fp32"), Device(CUDA), threads=1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Say how many GPUs the driver reports, and whether this onnxruntime can use them."""

    def say(gpus: int, *, cuda: bool) -> None:
        monkeypatch.setattr(session, "gpu_count", lambda: gpus)
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU] if cuda else [CPU])
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
    """fp16 on CUDA, int8 on a CPU that is fast at it, fp32 elsewhere and where they are missing, or what was asked."""
    monkeypatch.setattr(session, "has_fast_int8", lambda: fast)
    found = choose_variant(with_variants(bundle, *variants), Device(provider), choice)
    assert found == expected


def test_a_variant_that_is_not_there_is_not_replaced(bundle: Bundle) -> None:
    """Asking for a variant that was not exported is an error, and never another variant."""
    with pytest.raises(BundleError, match="has no fp16 variant"):
        choose_variant(with_variants(bundle), Device(CPU), "fp16")
