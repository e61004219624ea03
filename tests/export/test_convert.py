"""`export_model`: from a model's folder to a bundle whose every variant agrees with torch."""

from pathlib import Path

import numpy as np
import pytest

from export import parity
from export.bundle import Bundle, open_bundle
from export.convert import export_model
from export.errors import BundleError, ExportError, ParityError
from export.golden import PAIRS
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.session import CPU, Device
from tests.export.models import make_model

DEVICE = Device(CPU)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder as transformers saves it: no sentence-transformers modules around it."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cross-encoder: a classification head with one logit."""
    return make_model(tmp_path_factory.mktemp("models") / "cross", labels=1)


def test_default_model_meets_every_bar(bundle: Bundle) -> None:
    """The default bi-encoder has all three variants, each at least as near to torch as is promised."""
    variants = bundle.manifest.variants
    assert set(variants) == {"fp32", "int8", "fp16"}
    for variant, info in variants.items():
        parity.check(variant, info.parity)
    assert variants["fp32"].parity.min >= 0.9999
    assert variants["int8"].parity.mean >= 0.99
    assert variants["int8"].parity.batch_min >= 0.9999
    assert bundle.manifest.dimension == 384
    assert bundle.manifest.pooling == "mean"
    assert bundle.manifest.max_tokens == 256


def test_second_export_is_up_to_date(bundle: Bundle) -> None:
    """What is up to date is not exported again, whatever the order in which its variants are asked for."""
    again = export_model(None, bundle.folder, variants=("fp16", "int8"))
    assert again.up_to_date
    assert again.bundle.manifest == bundle.manifest


def test_plain_encoder_becomes_a_bi_encoder_of_unit_vectors(tiny: Path, tmp_path: Path) -> None:
    """A folder without sentence-transformers' modules gets mean pooling, and normalisation inside the graph."""
    bundle = export_model(str(tiny), tmp_path / "bundle", prefix="query: ", max_tokens=16).bundle
    assert bundle.manifest.kind == "bi-encoder"
    assert (bundle.manifest.prefix, bundle.manifest.max_tokens, bundle.manifest.dimension) == ("query: ", 16, 32)
    for variant in bundle.manifest.variants:
        encoder = BiEncoder(bundle, variant, DEVICE)
        vectors = encoder.encode(["hello", "where is my order " * 20])
        assert vectors.shape == (2, 32)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(encoder.tokenize("where is my order " * 20)) == 16


def test_cross_encoder_is_exported_by_the_same_command(cross: Path, tmp_path: Path) -> None:
    """A sequence-classification head with one logit becomes a cross-encoder whose variants agree with torch."""
    bundle = export_model(str(cross), tmp_path / "bundle").bundle
    assert bundle.manifest.kind == "cross-encoder"
    assert bundle.manifest.pooling is None
    scores = {v: CrossEncoder(bundle, v, DEVICE).score(PAIRS) for v in bundle.manifest.variants}
    assert scores["fp32"].shape == (len(PAIRS),)
    assert np.ptp(scores["fp32"]) > 0.1, "the model tells its pairs apart, so agreement means something"
    np.testing.assert_allclose(scores["int8"], scores["fp32"], atol=0.2)
    np.testing.assert_allclose(scores["fp16"], scores["fp32"], atol=0.02)


def test_fingerprint_is_of_the_vectors_and_not_of_the_variants(tiny: Path, tmp_path: Path) -> None:
    """Two bundles of one model with different variants serve one index; another prefix is another model."""
    one = export_model(str(tiny), tmp_path / "one", variants=("fp32",)).bundle.manifest
    two = export_model(str(tiny), tmp_path / "two", variants=("int8",)).bundle.manifest
    other = export_model(str(tiny), tmp_path / "other", variants=("fp32",), prefix="q: ").bundle.manifest
    assert set(one.variants) == {"fp32"}
    assert set(two.variants) == {"fp32", "int8"}
    assert one.fingerprint == two.fingerprint != other.fingerprint


def test_failed_parity_is_a_failed_export(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant that disagrees with torch fails the export, and the bundle that was there stays as it was."""
    target = tmp_path / "bundle"
    before = export_model(str(tiny), target, variants=("fp32",)).bundle.manifest
    monkeypatch.setitem(parity.BARS, "int8", (1.1, 1.1, 1.1))
    with pytest.raises(ParityError, match="the int8 variant does not agree with the torch model"):
        export_model(str(tiny), target)
    assert open_bundle(target).manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_interrupted_export_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves neither a bundle nor a trace of one."""

    def interrupt(step: str) -> None:
        if step.startswith("making int8"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_model(str(tiny), tmp_path / "bundle", report=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_truncated_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    """Weights that end early give a sentence that names the model, and no bundle."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[: len(data) // 2] if path.suffix == ".safetensors" else data)
    with pytest.raises(ExportError, match=r"broken cannot be loaded as a bi-encoder"):
        export_model(str(broken), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"max_tokens": 500}, r"--max-tokens 500 is more than the model can read \(64\)"), ({"prefix": "q"}, "no prefix")],
)
def test_options_that_do_not_fit_the_model(
    options: dict[str, object], sentence: str, cross: Path, tmp_path: Path
) -> None:
    """A limit beyond the model's, or a prefix for a cross-encoder, is refused before anything is made."""
    with pytest.raises(ExportError, match=sentence):
        export_model(str(cross), tmp_path / "bundle", **options)  # type: ignore[arg-type]  # options vary by case


def test_classifier_of_several_labels_is_refused(tmp_path: Path) -> None:
    """A classifier with more than one logit is no cross-encoder."""
    model = make_model(tmp_path / "three", labels=3)
    with pytest.raises(ExportError, match="classifier of 3 labels"):
        export_model(str(model), tmp_path / "bundle")


def test_target_that_is_something_else_is_refused(tiny: Path, tmp_path: Path) -> None:
    """A folder with other things in it is never replaced."""
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(BundleError, match="was not made by faqwire"):
        export_model(str(tiny), target)
    assert (target / "thesis.txt").read_text(encoding="utf-8") == "years of work"
