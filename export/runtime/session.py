"""ONNX Runtime sessions: which provider, which variant, and no silent fallback.

ONNX Runtime falls back to the CPU with a log line when CUDA cannot be loaded, and with a printed line when a provider
fails later. Here neither is let happen: the providers a session really has are compared with those asked for, "cuda" or
"tensorrt" that is absent is an error, and "auto" that settles for the CPU although a GPU is there says why.
"""

import ctypes
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, RuntimeException

from export.bundle import Bundle, Variant
from export.errors import BundleError, ProviderError
from export.runtime import tensorrt
from export.runtime.choices import Provider, VariantChoice

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_NAMES: dict[str, Literal["cpu", "cuda", "tensorrt"]] = {CPU: "cpu", CUDA: "cuda", TENSORRT: "tensorrt"}
# What a provider raises; ONNX Runtime has other classes for what is wrong with a file.
_PROVIDER_ERRORS = (RuntimeError, EPFail, RuntimeException)
_WHERE = re.compile(r"^\S+:\d+ .*?\) ")  # the file, line and function that its messages begin with
_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
# Options that are not the operator's, and what decides them.
_RESERVED = {
    "trt_fp16_enable": "the setting `variant` decides it",
    "trt_engine_cache_enable": "engines are always kept, in the folder that the setting `tensorrt_cache` names",
    "trt_engine_cache_path": "the setting `tensorrt_cache` decides it",
    "trt_profile_min_shapes": "it follows from the shapes of batches",
    "trt_profile_opt_shapes": "it follows from the shapes of batches",
    "trt_profile_max_shapes": "it follows from the shapes of batches",
    # A captured graph is replayed without the copy of its output to the host: results would be those of the capture.
    "enable_cuda_graph": "captured graphs are not supported",
    "trt_cuda_graph_enable": "captured graphs are not supported",
}


@dataclass(frozen=True)
class Device:
    """Where sessions run.

    Attributes:
        provider: ONNX Runtime's name of the execution provider.
        degraded: why a better one that is present is not used, or None.
        options: of the provider, as ONNX Runtime spells them.
        tensorrt_cache: where TensorRT's engines are kept.
    """

    provider: str
    degraded: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    tensorrt_cache: Path = tensorrt.CACHE

    @property
    def name(self) -> Literal["cpu", "cuda", "tensorrt"]:
        """The short name, as settings spell it."""
        return _NAMES[self.provider]

    @property
    def fixed_shapes(self) -> bool:
        """Whether batches are padded up to shapes that are fixed at the start: where a new shape costs time."""
        return self.provider != CPU

    @property
    def memory(self) -> Literal["cpu", "cuda"]:
        """ONNX Runtime's name of the memory that inputs are kept in."""
        return "cpu" if self.provider == CPU else "cuda"

    @property
    def device_id(self) -> int:
        """Which GPU."""
        return int(self.options.get("device_id", 0))


def gpu_count() -> int:
    """How many CUDA devices the driver reports; 0 where there is no driver."""
    library = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def has_fast_int8() -> bool:
    """Whether the CPU multiplies 8-bit integers faster than floats (VNNI on x86, dot product on ARM).

    Without those instructions 8-bit products on x86 are slower than they should be and saturate, which costs accuracy.
    """
    system = platform.system()  # not sys.platform: type checkers would call the other branches unreachable
    if system == "Linux":
        try:
            flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        except OSError:
            return False
        return bool(flags & {"avx512_vnni", "avx_vnni", "asimddp"})
    if system == "Darwin" and platform.machine() == "arm64":
        probe = ["/usr/sbin/sysctl", "-n", "hw.optional.arm.FEAT_DotProd"]
        answer = subprocess.run(probe, capture_output=True, text=True, check=False)  # noqa: S603 a constant command
        return answer.stdout.strip() == "1"
    return False


def find_device(
    provider: Provider, *, options: Mapping[str, str] = _NO_OPTIONS, tensorrt_cache: Path = tensorrt.CACHE
) -> Device:
    """Settle which execution provider to use.

    Args:
        provider: which one is asked for.
        options: of CUDA or TensorRT; the CPU takes none, and there they lapse.
        tensorrt_cache: where TensorRT's engines are kept.

    Raises:
        ProviderError: "cuda" or "tensorrt" was asked for and there is no build, driver or device for it, or an option
            is one that cannot be given.
    """
    for option in options:
        if option in _RESERVED:
            raise ProviderError(f'provider option "{option}" cannot be set: {_RESERVED[option]}; leave it out')
    if provider == "cpu":
        return Device(CPU)
    wanted, title = (TENSORRT, "TensorRT") if provider == "tensorrt" else (CUDA, "CUDA")
    devices = gpu_count()
    if devices and wanted in ort.get_available_providers():
        _check_device_id(options.get("device_id", "0"), devices)
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds the CUDA and cuDNN libraries of the `cuda` extra's wheels
        if provider == "tensorrt":
            tensorrt.preload()
        return Device(wanted, options=dict(options), tensorrt_cache=tensorrt_cache)
    if not devices:
        problem = "the CUDA driver reports no GPU"
    else:
        problem = f"this onnxruntime has no {title} provider (onnxruntime-gpu has one)"
    if provider != "auto":
        raise ProviderError(
            f'provider "{provider}" was asked for but {problem}; {_remedy(wanted)}, or set the provider to "cpu"'
        )
    return Device(CPU, degraded=problem if devices else None)


def _check_device_id(device_id: str, devices: int) -> None:
    if not device_id.isdecimal() or int(device_id) >= devices:
        raise ProviderError(
            f'provider option "device_id" is "{device_id}" and the CUDA driver reports {devices} GPUs, counted from 0'
        )


def _remedy(provider: str) -> str:
    return tensorrt.REMEDY if provider == TENSORRT else "install `faqwire[cuda]` on a machine with an NVIDIA driver"


def choose_variant(bundle: Bundle, device: Device, choice: VariantChoice) -> Variant:
    """The variant to run: fp16 on CUDA, int8 on a CPU that is fast at it, fp32 elsewhere, or the one asked for.

    Raises:
        BundleError: the variant that was asked for is not in the bundle.
    """
    if choice != "auto":
        variant_file(bundle, choice, device)
        return choice
    if device.provider == TENSORRT:
        return "fp16"
    best: Variant = "fp32"
    if device.provider == CUDA:
        best = "fp16"
    elif has_fast_int8():
        best = "int8"
    return best if best in bundle.manifest.variants else "fp32"


def variant_file(bundle: Bundle, variant: Variant, device: Device) -> Path:
    """The ONNX file that a variant is run from: its own, but for half precision in TensorRT, which starts from fp32.

    Raises:
        BundleError: the bundle was exported without it.
    """
    return bundle.variant_path("fp32" if variant == "fp16" and device.provider == TENSORRT else variant)


def open_session(path: Path, device: Device, *, threads: int, own: Mapping[str, str] = _NO_OPTIONS) -> Any:
    """Load an ONNX file.

    Args:
        path: the file.
        device: where it shall run.
        threads: threads a single run may use on a CPU.
        own: further options of the provider, beside the device's.

    Returns:
        An `onnxruntime.InferenceSession`, which raises where its provider fails, and never falls back.

    Raises:
        ProviderError: the provider could not be loaded after all, or refuses an option.
        BundleError: ONNX Runtime cannot load the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised here, in a sentence
    # Spinning threads take cores from the tokenizer and from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = _providers(device, own)
    try:
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as exc:  # ONNX Runtime raises a dozen classes with no common root but Exception
        if device.provider != CPU and isinstance(exc, _PROVIDER_ERRORS):
            raise _refusal(device, exc) from exc
        raise BundleError(f"{path} cannot be loaded by ONNX Runtime {ort.__version__}: {exc}") from exc
    missing = [name for name, _ in providers if name not in session.get_providers()]
    if missing:
        raise ProviderError(
            f"{missing[0]} could not be loaded, although a GPU is there: libraries that it needs are missing or do not "
            f'fit the driver; {_remedy(missing[0])}, or set the provider to "cpu"'
        )
    return session


def _providers(device: Device, own: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The device's provider, and those that take what it leaves."""
    chain = [(CPU, dict[str, str]())]
    if device.provider == TENSORRT:
        chain.insert(0, (CUDA, {"device_id": str(device.device_id)}))
    if device.provider != CPU:
        chain.insert(0, (device.provider, {**device.options, **own}))
    return chain


def _refusal(device: Device, exc: Exception) -> ProviderError:
    said = _WHERE.sub("", str(exc).strip().splitlines()[-1])
    option = next((name for name in device.options if name in str(exc)), None)
    if option is not None:
        value = device.options[option]
        return ProviderError(f'{device.provider} refuses the provider option "{option}" = "{value}": {said}')
    return ProviderError(
        f'{device.provider} cannot be used: {said}; {_remedy(device.provider)}, or set the provider to "cpu"'
    )
