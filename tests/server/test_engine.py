"""Guards `server.engine`: what is loaded before the first message, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from export.bundle import Bundle
from export.errors import BundleError, ProviderError
from export.runtime.session import gpu_count
from export.sealed import seal
from intents.errors import FaqIndexError
from intents.manifest import MANIFEST, Confirmed, read_index_manifest
from intents.store import current_folder
from server.cores import usable_cores
from server.engine import Engine, load_engine
from server.settings import Settings
from tests.intents.small import CONFIRMER


def test_sessions(settings: Settings) -> None:
    """On a CPU there is one session more than cores, or as many as the operator says."""
    assert load_engine(settings.model_copy(update={"sessions": 0})).encoder.sessions == usable_cores() + 1
    assert load_engine(settings.model_copy(update={"sessions": 2})).encoder.sessions == 2
    crowd = settings.model_copy(update={"sessions": 0, "workers": 2 * usable_cores()})
    assert load_engine(crowd).encoder.sessions == 2


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_variant(settings: Settings, variant: str) -> None:
    """The variant that was asked for is the one that runs."""
    assert load_engine(settings.model_copy(update={"variant": variant})).encoder.variant == variant


def test_search(engine: Engine, settings: Settings) -> None:
    """The exact search is a setting, and finds what Annoy finds."""
    exact = load_engine(settings.model_copy(update={"search": "exact", "sessions": 1}))
    vectors = engine.encoder.encode(["where is my parcel"])
    [found], [expected] = engine.search.retrieve(vectors), exact.search.retrieve(vectors)
    assert found.positions[0] == expected.positions[0]
    assert type(exact.search) is not type(engine.search)


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
def test_cuda_without_cuda(settings: Settings) -> None:
    """CUDA that was asked for and is absent is an error, never a silent CPU."""
    with pytest.raises(ProviderError, match='provider "cuda" was asked for but'):
        load_engine(settings.model_copy(update={"provider": "cuda"}))


def test_missing_model_and_index(settings: Settings, tmp_path: Path) -> None:
    """What is not there is named, with the command that makes it."""
    with pytest.raises(BundleError, match=r"make it with `faqwire export \[MODEL\] -o "):
        load_engine(settings.model_copy(update={"model": tmp_path / "model"}))
    with pytest.raises(FaqIndexError, match="build it with `faqwire build FAQ -o "):
        load_engine(settings.model_copy(update={"index": tmp_path / "index"}))


@pytest.fixture
def confirmed_by(shop_root: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The shop's index as if it had been built with the cross-encoder of this fingerprint."""

    def build(fingerprint: str) -> Path:
        root = shutil.copytree(shop_root, tmp_path / "index", symlinks=True)
        folder = current_folder(root)
        manifest = msgspec.structs.replace(
            read_index_manifest(folder, root),
            confirmer=msgspec.structs.replace(CONFIRMER, fingerprint=fingerprint, pair_tokens=24),
            confirmed=Confirmed(
                precision=0.9,
                answered=0.5,
                clarified=0.5,
                refused=0.5,
                calibration_error=0.0,
                messages=1,
                pairs=1,
                share_confirmed=1.0,
            ),
        )
        seal(folder, manifest, MANIFEST)
        return root

    return build


def test_cross_encoder(settings: Settings, cross_bundle: Bundle, confirmed_by: Callable[[str], Path]) -> None:
    """The cross-encoder reads pairs of the index's length, on as many lanes as there are, and is measured."""
    root = confirmed_by(cross_bundle.manifest.fingerprint)
    engine = load_engine(settings.model_copy(update={"index": root, "cross_encoder": cross_bundle.folder}))
    assert engine.cross_encoder is not None
    assert engine.cross_encoder.max_tokens == 24
    assert engine.cross_encoder.sessions == engine.encoder.sessions == 2
    assert engine.cross_encoder_took
    assert engine.encoder_took
    pairs = [engine.cross_encoder.tokenize("where is it", text) for text in ("Where is my order?", "Hello")]
    for lane in range(2):
        logits = engine.score(pairs, lane)
        assert [type(logit) for logit in logits] == [float, float]
        assert logits == pytest.approx(engine.cross_encoder.run(pairs).tolist(), abs=1e-5)


def test_index_that_confirms_without_a_cross_encoder(settings: Settings, confirmed_by: Callable[[str], Path]) -> None:
    """An index that was built with one can be served without: nothing is confirmed, and nothing can be read."""
    engine = load_engine(settings.model_copy(update={"index": confirmed_by("f" * 64)}))
    assert (engine.cross_encoder, engine.cross_encoder_took) == (None, ())
    with pytest.raises(RuntimeError, match="no cross-encoder"):
        engine.score([], 0)


def test_cross_encoder_that_does_not_fit(
    settings: Settings, cross_bundle: Bundle, confirmed_by: Callable[[str], Path]
) -> None:
    """A cross-encoder that the index was not built with is refused with what to run: its logits would mean nothing."""
    with pytest.raises(FaqIndexError, match=r"was built without a cross-encoder.*--cross-encoder"):
        load_engine(settings.model_copy(update={"cross_encoder": cross_bundle.folder}))
    other = settings.model_copy(update={"cross_encoder": cross_bundle.folder, "index": confirmed_by("f" * 64)})
    with pytest.raises(
        FaqIndexError, match=r"was built with another cross-encoder \(a cross-encoder\).*--cross-encoder"
    ):
        load_engine(other)


def test_bi_encoder_in_the_place_of_a_cross_encoder(settings: Settings) -> None:
    """A bundle of the other kind is refused."""
    with pytest.raises(BundleError, match="cross-encoder"):
        load_engine(settings.model_copy(update={"cross_encoder": settings.model}))
