"""ONNX Runtime sessions: which provider, which variant, and no silent fallback.

ONNX Runtime falls back to the CPU with a log line when CUDA cannot be loaded. Here the providers a session really has
are compared with those asked for: "cuda" that is absent is an error, "auto" that settles for the CPU although a GPU is
there says why.
"""

import ctypes
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from export.bundle import Bundle, Variant
from export.errors import BundleError, ProviderError

Provider = Literal["auto", "cpu", "cuda"]
VariantChoice = Literal["auto", "fp32", "int8", "fp16"]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Device:
    """Where sessions run.

    Attributes:
        provider: ONNX Runtime's name of the execution provider.
        degraded: why a better one that is present is not used, or None.
    """

    provider: str
    degraded: str | None = None

    @property
    def name(self) -> Literal["cpu", "cuda"]:
        """The short name, as settings spell it."""
        return "cuda" if self.provider == CUDA else "cpu"


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


def find_device(provider: Provider) -> Device:
    """Settle which execution provider to use.

    Raises:
        ProviderError: "cuda" was asked for and there is no build, driver or device for it.
    """
    if provider == "cpu":
        return Device(CPU)
    devices = gpu_count()
    if devices and CUDA in ort.get_available_providers():
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds the CUDA and cuDNN libraries of the `cuda` extra's wheels
        return Device(CUDA)
    if not devices:
        problem = "the CUDA driver reports no GPU"
    else:
        problem = "this onnxruntime has no CUDA provider (onnxruntime-gpu has one)"
    if provider == "cuda":
        raise ProviderError(
            f'provider "cuda" was asked for but {problem}; install `faqwire[cuda]` on a machine with an NVIDIA driver, '
            'or set the provider to "cpu"'
        )
    return Device(CPU, degraded=problem if devices else None)


def choose_variant(bundle: Bundle, device: Device, choice: VariantChoice) -> Variant:
    """The variant to run: fp16 on CUDA, int8 on a CPU that is fast at it, fp32 elsewhere, or the one asked for.

    Raises:
        BundleError: the variant that was asked for is not in the bundle.
    """
    if choice != "auto":
        bundle.variant_path(choice)
        return choice
    best: Variant = "fp32"
    if device.provider == CUDA:
        best = "fp16"
    elif has_fast_int8():
        best = "int8"
    return best if best in bundle.manifest.variants else "fp32"


def open_session(path: Path, device: Device, *, threads: int, device_id: int = 0) -> Any:
    """Load an ONNX file.

    Args:
        path: the file.
        device: where it shall run.
        threads: threads a single run may use on a CPU.
        device_id: which GPU.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ProviderError: the provider could not be loaded after all.
        BundleError: ONNX Runtime cannot load the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised here, in a sentence
    # Spinning threads take cores from the tokenizer and from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [CPU] if device.provider == CPU else [(device.provider, {"device_id": device_id}), CPU]
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as exc:  # ONNX Runtime raises a dozen classes with no common root but Exception
        raise BundleError(f"{path} cannot be loaded by ONNX Runtime {ort.__version__}: {exc}") from exc
    if device.provider not in session.get_providers():
        raise ProviderError(
            f"{device.provider} could not be loaded, although a GPU is there: its CUDA or cuDNN libraries are missing "
            'or do not fit the driver; install `faqwire[cuda]`, or set the provider to "cpu"'
        )
    return session
