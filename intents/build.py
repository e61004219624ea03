"""Build an index: encode what is new, plan the search, calibrate, seal, and make it current."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from export.bundle import Bundle
from export.runtime import render
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.sealed import seal, sha256_of, staged
from intents.calibrate import require_scikit_learn
from intents.calibration import Assumed, Reader, calibrate_index, prior_for
from intents.candidates import MAX_CANDIDATES, EntryScorer
from intents.confirm import Pair
from intents.effort import NEIGHBOURS, build_trees, plan_search
from intents.entries import Entry, Faq
from intents.errors import FaqIndexError
from intents.holdout import hold_out
from intents.index import ANNOY, FAQ, HEADS, LEXICON, OUT_OF_SCOPE, OWNERS, VECTORS, open_index
from intents.items import Item, items_of
from intents.labelled import read_out_of_scope
from intents.manifest import FORMAT, MANIFEST, IndexManifest
from intents.prior import SHIPPED_PRIOR
from intents.search import Floats
from intents.store import CURRENT, VERSIONS, current_folder, current_manifest, use_version, version_folder
from intents.weighing import choose_weights

SHIPPED_OUT_OF_SCOPE = Path(__file__).parent / "data" / "out_of_scope.csv"
BATCH = 64
# What decides the content of an index beside its inputs.
_OWN_CODE = (
    *("build", "calibrate", "calibrate_confirmer", "calibration", "candidates", "confirm", "decide", "effort", "heads"),
    *("holdout", "items", "lexical", "manifest", "normalise", "prior", "reading", "weighing"),
)


@dataclass(frozen=True)
class Options:
    """What an operator may choose about a build.

    Attributes:
        target_precision: of answered messages.
        out_of_scope_share: expected share of messages that the FAQ does not answer.
        candidates: how many of a message's candidates a cross-encoder reads, where there is one.
    """

    target_precision: float = 0.90
    out_of_scope_share: float = 0.30
    candidates: int = 5

    def __post_init__(self) -> None:
        if not (0 < self.target_precision < 1 and 0 < self.out_of_scope_share < 1):
            raise ValueError(f"{self}: shares are between 0 and 1")
        if not 1 <= self.candidates <= MAX_CANDIDATES:
            raise ValueError(f"{self}: 1 to {MAX_CANDIDATES} candidates can be read")


class Reporter:
    """Is told how a build goes; this one says nothing, the command line's draws it."""

    def step(self, what: str) -> None:
        """Something is being done."""

    def encoding(self, total: int) -> Callable[[int], None]:
        """Texts or pairs are about to be encoded; returns what to call with the number of those just done."""
        del total
        return lambda _: None


@dataclass(frozen=True)
class Built:
    """What `build_index` did.

    Attributes:
        manifest: the version that is current now.
        up_to_date: whether it was so already.
        encoded: how many of the index's texts were encoded, the others being taken from the version before.
    """

    manifest: IndexManifest
    up_to_date: bool
    encoded: int


def recipe_of(faq: Faq, model_fingerprint: str, options: Options, cross_encoder: Bundle | None) -> str:
    """A digest of everything that decides what an index holds, the code of this package included.

    Args:
        faq: what it is built of.
        model_fingerprint: of the bi-encoder's bundle.
        options: the operator's choices.
        cross_encoder: a cross-encoder's bundle, cut to the length of pairs, or None.
    """
    own = [sha256_of(Path(__file__).with_name(f"{name}.py")) for name in _OWN_CODE]
    confirming = None
    if cross_encoder is not None:
        manifest = cross_encoder.manifest
        shown = sha256_of(Path(render.__file__))
        confirming = (manifest.fingerprint, manifest.max_tokens, options.candidates, shown)
    parts = (
        FORMAT,
        hashlib.sha256(msgspec.json.encode(faq, order="deterministic")).hexdigest(),
        model_fingerprint,
        options.target_precision,
        options.out_of_scope_share,
        sha256_of(SHIPPED_OUT_OF_SCOPE),
        sha256_of(SHIPPED_PRIOR),
        version("annoy"),
        own,
        confirming,
    )
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def up_to_date(
    root: Path, faq: Faq, model_fingerprint: str, options: Options, cross_encoder: Bundle | None = None
) -> IndexManifest | None:
    """The current version's manifest if building would give the same again, else None; see `recipe_of`."""
    manifest = current_manifest(root)
    if manifest is not None and manifest.recipe == recipe_of(faq, model_fingerprint, options, cross_encoder):
        with suppress(FaqIndexError):
            folder = current_folder(root)
            open_index(folder, root, model_fingerprint=model_fingerprint, model_folder=Path())
            return manifest
    return None


def build_index(
    faq: Faq,
    encoder: BiEncoder,
    root: Path,
    options: Options,
    *,
    now: datetime,
    reporter: Reporter,
    cross_encoder: CrossEncoder | None = None,
) -> Built:
    """Build a version of an index and make it current.

    Args:
        faq: what to build it of.
        encoder: the model, in fp32.
        root: the index's folder.
        options: the operator's choices.
        now: when, for the version's name.
        reporter: told how it goes.
        cross_encoder: in fp32, cutting pairs where they will be cut; None builds an index that nothing confirms.

    Raises:
        FaqIndexError: every entry is disabled, the cross-encoder's logits are no numbers, or `root` cannot be written
            or is something else.
        FaqwireError: scikit-learn is not installed.
    """
    require_scikit_learn()
    fingerprint = encoder.bundle.manifest.fingerprint
    recipe = recipe_of(faq, fingerprint, options, None if cross_encoder is None else cross_encoder.bundle)
    items = items_of(faq.entries)
    if not items:
        raise FaqIndexError("every entry of the FAQ is disabled; enable at least one")
    _refuse_foreign(root)
    known = _known(root, fingerprint)
    vectors, encoded = _encode(items, encoder, known.texts, reporter)
    owners = np.array([item.entry for item in items], dtype=np.int64)
    reporter.step("fitting heads")
    held_out = hold_out(vectors, owners, items, entries=len(faq.entries), neighbours=min(NEIGHBOURS, len(items)))
    prior = prior_for(held_out, fingerprint)
    weights = choose_weights(held_out) if prior is None else prior.weights
    scorer = EntryScorer(owners, held_out.heads, held_out.lexicon, weights)
    limited = sum(_is_limited(faq.entries[item.entry]) for item in items)
    plan = plan_search(vectors, scorer, items, reporter.step, limited=limited)
    reporter.step("calibrating")
    source = sha256_of(SHIPPED_OUT_OF_SCOPE)
    shipped = read_out_of_scope(SHIPPED_OUT_OF_SCOPE)
    out_of_scope = known.out_of_scope.get(source)
    if out_of_scope is None:
        out_of_scope = encoder.encode(shipped, batch_size=BATCH)
    calibrated = calibrate_index(
        held_out.messages(weights, shipped, out_of_scope),
        faq.entries,
        items,
        Assumed(prior, held_out.notes) if prior is not None else None,
        None if cross_encoder is None else _reader(cross_encoder, reporter),
        candidates=options.candidates,
        target_precision=options.target_precision,
        out_of_scope_share=options.out_of_scope_share,
    )
    reporter.step("writing")
    moment = now.astimezone(UTC)
    name = f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03}Z-{recipe[:8]}"
    manifest = IndexManifest(
        format=FORMAT,
        version=name,
        created=moment.isoformat(timespec="seconds"),
        model=encoder.bundle.manifest.source.model,
        model_fingerprint=fingerprint,
        dimension=encoder.dimension,
        recipe=recipe,
        entries=len(faq.entries),
        items=len(items),
        texts=_digest(items),
        out_of_scope=source,
        plan=plan,
        weights=weights,
        policy=calibrated.policy,
        calibration=calibrated.calibration,
        confirmer=calibrated.confirmer,
        confirmed=calibrated.confirmed,
        built_with={package: version(package) for package in ("faqwire", "annoy", "numpy")},
    )
    manifest = _write(root, manifest, faq, vectors, scorer, out_of_scope)
    return Built(manifest, up_to_date=False, encoded=encoded)


def _write(
    root: Path, manifest: IndexManifest, faq: Faq, vectors: Floats, scorer: EntryScorer, out_of_scope: Floats
) -> IndexManifest:
    """Write a version, sealed, make it current, and return its manifest as it was sealed."""
    with staged(version_folder(root, manifest.version), MANIFEST, error=FaqIndexError) as draft:
        (draft / FAQ).write_bytes(msgspec.json.encode(faq))
        np.save(draft / VECTORS, vectors, allow_pickle=False)
        np.save(draft / OWNERS, scorer.owners, allow_pickle=False)
        np.save(draft / HEADS, np.column_stack([scorer.heads.weights, scorer.heads.biases]), allow_pickle=False)
        for field, file in LEXICON.items():
            np.save(draft / file, getattr(scorer.lexicon, field), allow_pickle=False)
        np.save(draft / OUT_OF_SCOPE, out_of_scope, allow_pickle=False)
        build_trees(vectors, manifest.plan.trees).save(str(draft / ANNOY))
        manifest = seal(draft, manifest, MANIFEST)
    use_version(root, manifest.version)
    return manifest


def _reader(cross_encoder: CrossEncoder, reporter: Reporter) -> Reader:
    def score(pairs: Sequence[Pair]) -> Floats:
        reporter.step(f"reading {len(pairs):,} pairs with the cross-encoder")
        return cross_encoder.score(pairs, progress=reporter.encoding(len(pairs)))

    return Reader(cross_encoder.bundle.manifest, score, cross_encoder.bundle.learnt())


def _is_limited(entry: Entry) -> bool:
    return entry.valid_from is not None or entry.valid_to is not None


def _refuse_foreign(root: Path) -> None:
    """Never write into a folder that holds something else."""
    if root.is_dir():
        if any(root.iterdir()) and not ((root / VERSIONS).is_dir() or (root / CURRENT).is_symlink()):
            raise FaqIndexError(f"{root} holds other files and is not a FAQ index; choose another place")
    elif root.exists() or root.is_symlink():
        raise FaqIndexError(f"{root} is a file and not a FAQ index; choose another place")


@dataclass(frozen=True)
class _Known:
    """Vectors that need not be computed again.

    Attributes:
        texts: of the items' texts.
        out_of_scope: of out-of-scope messages, by the sha256 of their file.
    """

    texts: Mapping[str, Floats] = field(default_factory=dict)
    out_of_scope: Mapping[str, Floats] = field(default_factory=dict)


def _known(root: Path, fingerprint: str) -> _Known:
    """The vectors that the current version holds, if the same model made them."""
    with suppress(FaqIndexError, OSError, ValueError):
        folder = current_folder(root)
        old = open_index(folder, root, model_fingerprint=fingerprint, model_folder=Path())
        items = items_of(old.faq.entries)
        out_of_scope = np.load(folder / OUT_OF_SCOPE, allow_pickle=False)
        # Another version of faqwire may have made other items of the same entries.
        same = _digest(items) == old.manifest.texts
        texts = {item.text: old.vectors[i] for i, item in enumerate(items)} if same else {}
        return _Known(texts, {old.manifest.out_of_scope: out_of_scope})
    return _Known()


def _digest(items: Sequence[Item]) -> str:
    return hashlib.sha256(msgspec.json.encode([item.text for item in items])).hexdigest()


def _encode(
    items: Sequence[Item], encoder: BiEncoder, known: Mapping[str, Floats], reporter: Reporter
) -> tuple[Floats, int]:
    """Vectors of all items, and how many had to be encoded."""
    new = sorted({item.text for item in items if item.text not in known})
    reporter.step(f"encoding {len(new):,} of {len(items):,} texts")
    fresh = encoder.encode(new, batch_size=BATCH, progress=reporter.encoding(len(new)))
    at = dict(zip(new, fresh, strict=True))
    return np.stack([at[item.text] if item.text in at else known[item.text] for item in items]), len(new)
