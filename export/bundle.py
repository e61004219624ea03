"""The model bundle: a sealed folder with one exported model in every variant, and what its numbers mean."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from export.errors import BundleError
from export.learnt import LEARNT, Learnt
from export.sealed import Sealed, read_manifest, verify_files

FORMAT = 1
MANIFEST = "bundle.json"
TOKENIZER = "tokenizer.json"

Kind = Literal["bi-encoder", "cross-encoder"]
Variant = Literal["fp32", "int8", "fp16"]


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where the weights came from.

    Attributes:
        model: the Hugging Face id, or the local folder's name.
        revision: the hub's commit, or None for local folders.
        weights: sha256 of every weights file.
    """

    model: str
    revision: str | None
    weights: dict[str, str]


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How well a variant agrees with the torch reference on the golden sentences.

    For a bi-encoder the figures are cosines of a vector with the reference's. For a cross-encoder they are one minus
    the absolute difference of the probabilities that the logits stand for. 1 is perfect for both.

    Attributes:
        mean, min: over the golden sentences.
        batch_min: the lowest agreement of an input run alone with the same one run in a batch of 16.
        provider: the execution provider that it was measured on; half precision differs between devices.
    """

    mean: float
    min: float
    batch_min: float
    provider: str


class VariantInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One exported precision of the model."""

    file: str
    parity: Parity


class BundleManifest(Sealed, frozen=True, kw_only=True):
    """What `bundle.json` says.

    Attributes:
        kind: a bi-encoder gives (n, dimension) float32 unit vectors, a cross-encoder (n,) float32 logits.
        source: where the weights came from.
        pooling: how token vectors become one vector, None for a cross-encoder. It is in the graph.
        dimension: length of a vector, 1 for a cross-encoder.
        max_tokens: inputs are cut to this many tokens, special ones included.
        prefix: put before every text, as some models want it.
        opset: ONNX opset of the fp32 graph.
        variants: those that were asked for; "fp32" is always among them, for an index is encoded with it.
        made_with: versions of the packages that made it.
        recipe: digest of everything that decides the result; an equal one need not be exported again.
        fingerprint: identity of the vectors: weights, tokenizer, pooling, length and prefix, but not the variants.
    """

    kind: Kind
    source: ModelSource
    pooling: str | None
    dimension: int
    max_tokens: int
    prefix: str
    opset: int
    variants: dict[Variant, VariantInfo]
    made_with: dict[str, str]
    recipe: str
    fingerprint: str


def fingerprint(
    *, kind: Kind, weights: dict[str, str], tokenizer_sha256: str, pooling: str | None, max_tokens: int, prefix: str
) -> str:
    """The identity of what a model computes; indexes name the one they were encoded with."""
    parts = (kind, weights, tokenizer_sha256, pooling, max_tokens, prefix)
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; `open_bundle` makes them."""

    folder: Path
    manifest: BundleManifest

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer's file."""
        return self.folder / TOKENIZER

    def learnt(self) -> Learnt:
        """The messages that the model was trained on, as far as the bundle knows.

        Raises:
            BundleError: its file is damaged.
        """
        return Learnt.read(self.folder, error=BundleError) if LEARNT in self.manifest.files else Learnt()

    def variant_path(self, variant: Variant) -> Path:
        """The ONNX file of a variant.

        Raises:
            BundleError: the bundle was exported without it.
        """
        try:
            return self.folder / self.manifest.variants[variant].file
        except KeyError:
            have, model = ",".join(self.manifest.variants), self.manifest.source.model
            raise BundleError(
                f"{self.folder} has no {variant} variant (it has {have}); set `variant` to one that it has, or export "
                f"it again with `faqwire export {model} -o {self.folder} --variants {have},{variant}`"
            ) from None


def remedy(folder: Path) -> str:
    """What to do about a bundle that cannot be used."""
    return f"make it with `faqwire export [MODEL] -o {folder}`"


def open_bundle(folder: Path, *, kind: Kind | None = None, verify: bool = True) -> Bundle:
    """Open a bundle and, unless told otherwise, verify the sha256 of every file in it.

    Args:
        folder: where it is.
        kind: the kind that is needed, or None for any.
        verify: False reads the manifest alone, for those who only want to know what the bundle is.

    Raises:
        BundleError: it is missing, damaged, of a newer format, or of another kind.
    """
    manifest = read_manifest(
        folder,
        BundleManifest,
        MANIFEST,
        newest=FORMAT,
        noun="model bundle",
        remedy=remedy(folder),
        error=BundleError,
    )
    wanted = {TOKENIZER, *(info.file for info in manifest.variants.values())}
    if not wanted <= manifest.files.keys() or "fp32" not in manifest.variants or not 0 < manifest.max_tokens < 1 << 16:
        raise BundleError(
            f"{folder / MANIFEST} is inconsistent: it names files that it does not vouch for; {remedy(folder)}"
        )
    if kind is not None and manifest.kind != kind:
        raise BundleError(f"{folder} is a {manifest.kind} and a {kind} is needed; name another bundle")
    if verify:
        verify_files(folder, manifest, remedy=remedy(folder), error=BundleError)
    return Bundle(folder, manifest)
