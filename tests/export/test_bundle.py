"""Opening a model bundle, and what makes two bundles the same model."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from export.bundle import (
    FORMAT,
    MANIFEST,
    Bundle,
    BundleManifest,
    ModelSource,
    Parity,
    VariantInfo,
    fingerprint,
    open_bundle,
)
from export.errors import BundleError
from export.sealed import seal

PARITY = Parity(mean=1.0, min=1.0, batch_min=1.0, provider="CPUExecutionProvider")
IDENTITY: dict[str, Any] = {
    "kind": "bi-encoder",
    "weights": {"model.safetensors": "1" * 64},
    "tokenizer_sha256": "2" * 64,
    "pooling": "mean",
    "max_tokens": 256,
    "prefix": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed bundle whose files are a few bytes each."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("tokenizer.json", "model.fp32.onnx", "model.int8.onnx"):
        (folder / name).write_bytes(name.encode())
    manifest = BundleManifest(
        format=FORMAT,
        kind="bi-encoder",
        source=ModelSource(model="tiny", revision=None, weights={}),
        pooling="mean",
        dimension=8,
        max_tokens=16,
        prefix="",
        opset=18,
        variants={
            "fp32": VariantInfo(file="model.fp32.onnx", parity=PARITY),
            "int8": VariantInfo(file="model.int8.onnx", parity=PARITY),
        },
        made_with={},
        recipe="r",
        fingerprint="f",
    )
    seal(folder, manifest, MANIFEST)
    return folder


def test_the_real_bundle_opens(bundle: Bundle) -> None:
    """The default model's bundle is whole, and is of the kind that it says."""
    opened = open_bundle(bundle.folder, kind="bi-encoder")
    assert opened == bundle
    assert set(opened.manifest.files) == {"tokenizer.json", *(v.file for v in opened.manifest.variants.values())}


def test_a_bundle_knows_its_files(folder: Path) -> None:
    """The tokenizer and every variant are found by name."""
    bundle = open_bundle(folder)
    assert bundle.tokenizer_path.read_bytes() == b"tokenizer.json"
    assert bundle.variant_path("int8").read_bytes() == b"model.int8.onnx"


def test_a_variant_that_was_not_exported_is_named(folder: Path) -> None:
    """Asking for a variant that is not there says which are, and how to have it."""
    with pytest.raises(BundleError) as caught:
        open_bundle(folder).variant_path("fp16")
    assert str(caught.value) == (
        f"{folder} has no fp16 variant (it has fp32,int8); set `variant` to one that it has, or export it again with "
        f"`faqwire export tiny -o {folder} --variants fp32,int8,fp16`"
    )


def test_another_kind_is_refused(folder: Path) -> None:
    """A bi-encoder is no cross-encoder, and the sentence names both."""
    with pytest.raises(BundleError, match="is a bi-encoder and a cross-encoder is needed; name another bundle"):
        open_bundle(folder, kind="cross-encoder")


@pytest.mark.parametrize("name", ["tokenizer.json", "model.fp32.onnx", "model.int8.onnx"])
def test_one_changed_byte_is_refused(folder: Path, name: str) -> None:
    """A byte that changed in any file is found, and the sentence says how to mend it."""
    (folder / name).write_bytes(b"X" + (folder / name).read_bytes()[1:])
    with pytest.raises(BundleError, match=f"{name} is damaged.*; make it with `faqwire export .MODEL. -o {folder}`"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.fp32.onnx", MANIFEST])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    """A file that is gone is named."""
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        open_bundle(folder)


def test_the_manifest_can_be_had_alone(folder: Path) -> None:
    """Without verification only the manifest is read: it costs nothing, and promises nothing about the files."""
    (folder / "model.fp32.onnx").unlink()
    assert open_bundle(folder, verify=False).manifest.fingerprint == "f"
    (folder / MANIFEST).write_bytes(b"{}")
    with pytest.raises(BundleError, match=r"bundle\.json is damaged"):
        open_bundle(folder, verify=False)


def test_an_unknown_kind_is_damage(folder: Path) -> None:
    """A manifest that names a kind or a variant that there is not is refused."""
    data = msgspec.json.decode((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(msgspec.json.encode({**data, "kind": "decoder"}))
    with pytest.raises(BundleError, match="is damaged"):
        open_bundle(folder)


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "index"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, shop_root: Path, kind: str) -> None:
    """A missing folder, an empty one, a file, or the folder of an index is no bundle; the sentence says what to run."""
    place = tmp_path / "bundle"
    if kind == "empty":
        place.mkdir()
    elif kind == "file":
        place.write_bytes(b"x")
    elif kind == "index":
        place = shop_root
    with pytest.raises(
        BundleError,
        match=f"{re.escape(str(place))} is not a model bundle: .*; make it with `faqwire export .MODEL. -o ",
    ):
        open_bundle(place)


def test_the_fingerprint_is_of_what_decides_the_vectors() -> None:
    """Any change of weights, tokenizer, pooling, length or prefix is another model; the same parts are the same."""
    same = fingerprint(**IDENTITY)
    assert fingerprint(**IDENTITY) == same
    for field, value in (
        ("kind", "cross-encoder"),
        ("weights", {"model.safetensors": "3" * 64}),
        ("weights", {"other.safetensors": "1" * 64}),
        ("tokenizer_sha256", "4" * 64),
        ("pooling", None),
        ("max_tokens", 128),
        ("prefix", "query: "),
    ):
        assert fingerprint(**{**IDENTITY, field: value}) != same
