"""`faqwire doctor`: what is here, what is wrong, and what to do."""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import click

from export.bundle import Bundle, open_bundle
from export.errors import FaqwireError
from server.cli import options
from server.settings import Settings, read_settings

# Below this the variant that serves does not compute what the index was encoded with.
MIN_AGREEMENT = 0.985


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: Literal["ok", "note", "wrong"]
    what: str
    detail: str


@click.command
@options.index
@options.model
@options.provider
@options.variant
@options.config
def command(config: Path | None, **flags: object) -> None:
    """Look at the machine, the packages, the model and the index; exit status 1 if something is wrong."""
    from server.cli.console import out

    settings = read_settings(config, **flags)
    marks = {"ok": "[green]ok   [/]", "note": "[yellow]note [/]", "wrong": "[red]wrong[/]"}
    wrong = False
    for finding in _findings(settings):
        out.print(marks[finding.state], end=" ")
        out.print(f"{finding.what}: {finding.detail}", markup=False)
        wrong = wrong or finding.state == "wrong"
    if wrong:
        sys.exit(1)


def _findings(settings: Settings) -> Iterator[Finding]:
    yield from _machine()
    yield from _packages()
    try:
        bundle = open_bundle(settings.model, kind="bi-encoder")
    except FaqwireError as exc:
        yield Finding("wrong", "model", str(exc))
        return
    yield from _model(settings.model, bundle)
    for what, look in (("serving", _serving), ("index", _index)):
        try:
            yield from look(settings, bundle)
        except FaqwireError as exc:
            yield Finding("wrong", what, str(exc))


def _machine() -> Iterator[Finding]:
    from export.runtime.session import gpu_count, has_fast_int8
    from server.cores import usable_cores

    fast = "with" if has_fast_int8() else "without"
    yield Finding(
        "ok",
        "machine",
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {usable_cores()} cores "
        f"{fast} fast 8-bit products, {gpu_count()} CUDA devices",
    )


def _packages() -> Iterator[Finding]:
    import onnxruntime

    found = {}
    for name in ("faqwire", "onnxruntime", "onnxruntime-gpu", "tokenizers", "annoy", "numpy", "websockets"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    yield Finding("ok", "packages", ", ".join(f"{name} {number}" for name, number in found.items()))
    if "onnxruntime" in found and "onnxruntime-gpu" in found:
        yield Finding(
            "wrong",
            "onnxruntime",
            "both onnxruntime and onnxruntime-gpu are installed and overwrite each other's files; uninstall both, "
            "then install faqwire again",
        )
    yield Finding("ok", "onnxruntime", f"{onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}")


def _model(folder: Path, bundle: Bundle) -> Iterator[Finding]:
    manifest = bundle.manifest
    variants = ", ".join(f"{name} (agreement {info.parity.mean:.4f})" for name, info in manifest.variants.items())
    yield Finding("ok", "model", f"{folder}: {manifest.source.model}, {manifest.kind}, {variants}; every file verified")


def _serving(settings: Settings, bundle: Bundle) -> Iterator[Finding]:
    """Run the variant that would serve, on the device that would serve, against fp32 on the CPU."""
    import numpy as np

    from export.golden import SENTENCES
    from export.runtime.bi_encoder import BiEncoder
    from export.runtime.session import CPU, Device, choose_variant
    from server.engine import device_of

    device = device_of(settings)
    if device.degraded:
        yield Finding("note", "provider", f"a GPU is there and the CPU will be used: {device.degraded}")
    variant = choose_variant(bundle, device, settings.variant)
    vectors = BiEncoder(bundle, variant, device, max_rows=settings.max_batch).encode(SENTENCES)
    reference = BiEncoder(bundle, "fp32", Device(CPU)).encode(SENTENCES)
    agreement = float(np.mean(np.sum(vectors * reference, axis=1)))
    enough = agreement >= MIN_AGREEMENT
    advice = "" if enough else f"; at least {MIN_AGREEMENT} is needed: set `variant` to fp32, and report this machine"
    yield Finding(
        "ok" if enough else "wrong",
        "serving",
        f"{variant} on {device.provider}, agreement with fp32 on the CPU {agreement:.4f}{advice}",
    )


def _index(settings: Settings, bundle: Bundle) -> Iterator[Finding]:
    from intents.index import open_index
    from intents.store import current_folder, list_versions

    folder = current_folder(settings.index)
    index = open_index(
        folder, settings.index, model_fingerprint=bundle.manifest.fingerprint, model_folder=settings.model
    )
    manifest = index.manifest
    yield Finding(
        "ok",
        "index",
        f"{settings.index}: version {manifest.version}, {manifest.entries} entries, {manifest.items} phrasings and "
        f"answers; every file verified; {len(list_versions(settings.index))} versions are kept",
    )
    for note in manifest.calibration.notes:
        yield Finding("note", "index", note)
