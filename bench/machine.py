"""What a figure was measured on."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from server.cores import usable_cores

_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "tokenizers", "numpy", "annoy", "websockets")


def heading(command: str) -> str:
    """Date, processor and versions, as Markdown lines to stand above a table."""
    from contextlib import suppress

    versions = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        with suppress(Exception):
            versions.append(f"{package} {version(package)}")
    return (
        f"- command: `{command}`\n"
        f"- date: {datetime.now(UTC):%Y-%m-%d}\n"
        f"- machine: {processor()}, {usable_cores()} cores, {platform.system()} {platform.machine()}\n"
        f"- versions: {', '.join(versions)}\n"
    )


def processor() -> str:
    """The processor's name, and its 8-bit instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    fast = [flag for flag in ("avx512_vnni", "avx_vnni", "asimddp") if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine())} ({', '.join(fast) or 'no 8-bit dot products'})"
