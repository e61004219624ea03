"""Guards `server.engine`: what is loaded before the first message, and what is refused."""

from pathlib import Path

import pytest

from export.errors import BundleError, ProviderError
from export.runtime.session import gpu_count
from intents.errors import FaqIndexError
from server.engine import Engine, load_engine, usable_cores
from server.settings import Settings


def test_sessions(settings: Settings) -> None:
    """On a CPU there is one session for each core, or as many as the operator says."""
    assert load_engine(settings.model_copy(update={"sessions": 0})).encoder.sessions == usable_cores()
    assert load_engine(settings.model_copy(update={"sessions": 3})).encoder.sessions == 3


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
