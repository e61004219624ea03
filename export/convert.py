"""From a model's folder to a bundle: export with optimum, quantize, halve, compare with torch, seal.

torch and optimum are imported inside the functions that use them, so that what is up to date is found to be so in
milliseconds.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from export import parity
from export.adapter import whole
from export.bundle import (
    FORMAT,
    MANIFEST,
    TOKENIZER,
    Bundle,
    BundleManifest,
    Kind,
    ModelSource,
    Parity,
    Variant,
    VariantInfo,
    fingerprint,
    open_bundle,
)
from export.errors import BundleError, ExportError
from export.golden import PAIRS, SENTENCES
from export.learnt import LEARNT, Learnt
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.encoder import Floats
from export.runtime.session import find_device
from export.sealed import seal, sha256_of, staged
from export.source import Source, find_source

VARIANTS: tuple[Variant, ...] = ("fp32", "int8", "fp16")
_PACKAGES = ("torch", "transformers", "peft", "sentence-transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime")
_OWN_CODE = ("adapter.py", "convert.py", "golden.py", "graph.py", "int8/*.py", "parity.py")

_UNMEASURED = Parity(mean=0.0, min=0.0, batch_min=0.0, provider="")

Report = Callable[[str], None]


class _Reference(Protocol):
    """The torch model, as far as a bundle is concerned."""

    pooling: str | None
    normalised: bool
    max_tokens: int
    prefix: str
    heads: int
    hidden: int

    def outputs(self) -> Floats:
        """Vectors or logits of the golden texts."""


@dataclass(frozen=True)
class Exported:
    """What `export_model` did: the bundle, and whether it was up to date already."""

    bundle: Bundle
    up_to_date: bool


def export_model(
    model: str | None,
    target: Path,
    *,
    variants: Sequence[Variant] = VARIANTS,
    max_tokens: int | None = None,
    prefix: str | None = None,
    revision: str | None = None,
    force: bool = False,
    report: Report = lambda _: None,
) -> Exported:
    """Export a model into a bundle at `target`, or find that the one there is up to date.

    Args:
        model: a Hugging Face id, a local folder, or None for the default model.
        target: the bundle's folder; a bundle that is there is replaced when the new one is whole.
        variants: which precisions to make; fp32 is always made.
        max_tokens: cut inputs to this many tokens, or None for the model's own limit.
        prefix: put before every text, or None for the model's own query prompt, if it has one.
        revision: the hub's branch, tag or commit.
        force: export even what is up to date.
        report: told what is being done, a few words at a time.

    Raises:
        SourceError: there is no such model, or it cannot be exported safely.
        ExportError: the `export` extra is not installed, or the model cannot be exported.
        ParityError: a variant does not agree with the reference.
        BundleError: `target` cannot be written.
    """
    named = find_source(model, revision)
    made_with = _versions()
    wanted = tuple(v for v in VARIANTS if v == "fp32" or v in variants)
    recipe = _recipe(named, wanted, max_tokens, prefix, made_with)
    if not force:
        with contextlib.suppress(BundleError):
            bundle = open_bundle(target)
            if bundle.manifest.recipe == recipe:
                return Exported(bundle, up_to_date=True)
    with staged(target, MANIFEST, error=BundleError) as folder, _quiet(), whole(named) as source:
        if (learnt := Learnt.read(named.folder, error=BundleError)).digests.size:
            learnt.write(folder)
        report(f"loading {source.name}")
        reference = _load_reference(source, max_tokens, prefix)
        expected = reference.outputs()
        shutil.copyfile(source.folder / TOKENIZER, folder / TOKENIZER)
        files = {variant: f"model.{variant}.onnx" for variant in wanted}
        report("making fp32")
        opset = _make_fp32(source, folder / files["fp32"], normalised=reference.normalised)
        for variant in wanted[1:]:
            report(f"making {variant}")
            _make_smaller(variant, folder / files["fp32"], folder / files[variant], source.kind, reference)
        draft = BundleManifest(
            format=FORMAT,
            kind=source.kind,
            source=ModelSource(model=source.name, revision=source.revision, weights=source.weights),
            pooling=reference.pooling,
            dimension=expected.shape[1] if source.kind == "bi-encoder" else 1,
            max_tokens=reference.max_tokens,
            prefix=reference.prefix,
            opset=opset,
            variants={variant: VariantInfo(file=file, parity=_UNMEASURED) for variant, file in files.items()},
            made_with=made_with,
            recipe=recipe,
            fingerprint=fingerprint(
                kind=source.kind,
                weights=source.weights,
                tokenizer_sha256=sha256_of(folder / TOKENIZER),
                pooling=reference.pooling,
                max_tokens=reference.max_tokens,
                prefix=reference.prefix,
            ),
        )
        seal(folder, _compared(Bundle(folder, draft), expected, report), MANIFEST)
    return Exported(open_bundle(target), up_to_date=False)


def _compared(draft: Bundle, expected: Floats, report: Report) -> BundleManifest:
    """The manifest of a bundle whose variants have all been compared with the reference, and have passed."""
    measured = {}
    for variant, info in draft.manifest.variants.items():
        report(f"comparing {variant} with torch")
        measured[variant] = msgspec.structs.replace(info, parity=_measure(draft, variant, expected))
        parity.check(variant, measured[variant].parity)
    return msgspec.structs.replace(draft.manifest, variants=measured)


def _measure(bundle: Bundle, variant: Variant, expected: Floats) -> Parity:
    encoder_type = BiEncoder if bundle.manifest.kind == "bi-encoder" else CrossEncoder
    encoder = encoder_type(bundle, variant, find_device("auto" if variant == "fp16" else "cpu"))
    return parity.measure(encoder, expected)


def _make_fp32(source: Source, target: Path, *, normalised: bool) -> int:
    """Export the graph in full precision, and return its opset."""
    import onnx
    from optimum.exporters.onnx import main_export

    from export.graph import shape_outputs

    bi_encoder = source.kind == "bi-encoder"
    with tempfile.TemporaryDirectory() as raw:
        try:
            main_export(
                str(source.folder),
                output=raw,
                task="feature-extraction" if bi_encoder else "text-classification",
                library_name="sentence_transformers" if bi_encoder else "transformers",
                do_validation=False,  # done here, on the bundle's own terms
                trust_remote_code=False,
                device="cpu",
            )
        except Exception as exc:  # optimum, torch and transformers raise anything
            raise ExportError(f"{source.name} cannot be exported to ONNX: {exc}") from exc
        if any(path.suffix == ".onnx_data" for path in Path(raw).iterdir()):
            raise ExportError(
                f"{source.name} is larger than 2 GB, which faqwire does not serve; choose a smaller model"
            )
        model = shape_outputs(onnx.load(Path(raw) / "model.onnx"), source.kind, normalised=normalised)
    onnx.save(model, target)
    return next(int(o.version) for o in model.opset_import if o.domain in {"", "ai.onnx"})


def _make_smaller(variant: Variant, fp32: Path, target: Path, kind: Kind, reference: _Reference) -> None:
    """Derive int8 or fp16 from the fp32 graph."""
    import onnx

    from export.graph import to_fp16
    from export.int8 import quantize

    try:
        if variant == "int8":
            onnx.save(quantize(onnx.load(fp32)), target)
        else:
            to_fp16(fp32, target, kind, heads=reference.heads, hidden=reference.hidden)
    except OSError:
        raise  # a full disk is no fault of the model
    except Exception as exc:  # ONNX Runtime's optimizer meets graphs that it was not made for
        raise ExportError(
            f"the {variant} variant cannot be made of this model ({exc}); leave it out with --variants"
        ) from exc


class _BiEncoderReference:
    """A sentence-transformers model."""

    def __init__(self, source: Source, max_tokens: int | None, prefix: str | None) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

        self._model: Any = SentenceTransformer(
            str(source.folder), device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
        self.max_tokens = _limit(max_tokens, self._model.max_seq_length)
        self._model.max_seq_length = self.max_tokens
        self.prefix = self._model.prompts.get("query", "") if prefix is None else prefix
        self.pooling: str | None
        modes = [m.pooling_mode for m in self._model if isinstance(m, Pooling)]
        self.pooling = modes[0] if modes and isinstance(modes[0], str) else "+".join(*modes) or None
        self.normalised = any(isinstance(m, Normalize) for m in self._model)
        config = self._model[0].auto_model.config
        self.heads, self.hidden = config.num_attention_heads, config.hidden_size

    def outputs(self) -> Floats:
        texts = [self.prefix + text for text in SENTENCES]
        vectors = self._model.encode(texts, prompt="", normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


class _CrossEncoderReference:
    """A sequence-classification model with one logit."""

    pooling: str | None = None
    normalised = False
    prefix = ""

    def __init__(self, source: Source, max_tokens: int | None, prefix: str | None) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if prefix:
            raise ExportError("a cross-encoder takes no prefix; leave --prefix out")
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(
            str(source.folder), trust_remote_code=False, use_safetensors=True
        ).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(source.folder), trust_remote_code=False)
        config = self._model.config
        self.max_tokens = _limit(max_tokens, min(self._tokenizer.model_max_length, int(config.max_position_embeddings)))
        self.heads, self.hidden = config.num_attention_heads, config.hidden_size

    def outputs(self) -> Floats:
        import torch

        with torch.inference_mode():
            batch = self._tokenizer(
                list(PAIRS), padding=True, truncation="longest_first", max_length=self.max_tokens, return_tensors="pt"
            )
            logits = self._model(**batch).logits
        return np.asarray(logits[:, 0].numpy(), dtype=np.float32)


def _load_reference(source: Source, max_tokens: int | None, prefix: str | None) -> _Reference:
    loader = _BiEncoderReference if source.kind == "bi-encoder" else _CrossEncoderReference
    try:
        return loader(source, max_tokens, prefix)
    except ImportError as exc:
        raise ExportError(f"exporting needs the export extra ({exc}); install `faqwire[export]`") from exc
    except ExportError:
        raise
    except Exception as exc:  # transformers and safetensors raise anything
        raise ExportError(f"{source.folder} cannot be loaded as a {source.kind}: {exc}") from exc


def _limit(asked: int | None, own: int | None) -> int:
    own = 512 if own is None else own
    if asked is not None and asked > own:
        raise ExportError(f"--max-tokens {asked} is more than the model can read ({own})")
    return own if asked is None else asked


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        names = ("onnxruntime-gpu", "onnxruntime") if package == "onnxruntime" else (package,)
        for name in names:
            with contextlib.suppress(PackageNotFoundError):
                versions[name] = version(name)
    return versions


def _recipe(
    source: Source,
    variants: tuple[Variant, ...],
    max_tokens: int | None,
    prefix: str | None,
    made_with: dict[str, str],
) -> str:
    """A digest of everything that decides what a bundle holds, the code of this package included."""
    settings = [
        (path.relative_to(one.folder).as_posix(), sha256_of(path))
        for one in (source, source.base)
        if one is not None
        for pattern in ("*.json", "*.txt", LEARNT)
        for path in sorted(one.folder.rglob(pattern))
    ]
    own = Path(__file__).parent
    code = {
        path.relative_to(own).as_posix(): sha256_of(path) for pattern in _OWN_CODE for path in sorted(own.glob(pattern))
    }
    parts = (FORMAT, source.name, source.revision, source.weights, settings, variants, max_tokens, prefix, made_with)
    return hashlib.sha256(msgspec.json.encode((*parts, code), order="deterministic")).hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the libraries print while they export; what matters to the user is raised or reported here.

    Local files are all that is needed by now, so the hub's client is also kept off the network.
    """
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
