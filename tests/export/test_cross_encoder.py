"""Running a cross-encoder: pairs, cut where they are to be cut."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from export.bundle import Bundle
from export.convert import export_model
from export.golden import LONG, PAIRS
from export.runtime.cross_encoder import CrossEncoder, cut_to
from export.runtime.session import CPU, Device
from tests.export.models import make_model

DEVICE = Device(CPU)


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small cross-encoder, in fp32 and int8."""
    folder = tmp_path_factory.mktemp("cross")
    return export_model(str(make_model(folder / "model", labels=1)), folder / "bundle", variants=("int8",)).bundle


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_a_logit_does_not_depend_on_its_batch(cross: Bundle, variant: str) -> None:
    """A pair alone and among longer ones gets the same logit: (n,) float32."""
    encoder = CrossEncoder(cross, variant, DEVICE)  # type: ignore[arg-type]
    batch = [encoder.tokenize(*pair) for pair in PAIRS]
    together = encoder.run(batch)
    assert together.shape == (len(PAIRS),)
    assert together.dtype == np.float32
    alone = np.concatenate([encoder.run([one]) for one in batch])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_scoring_keeps_the_order_of_pairs(cross: Bundle) -> None:
    """Pairs are run in batches of like length, and their logits come back in the order in which they were given."""
    encoder = CrossEncoder(cross, "fp32", DEVICE)
    done: list[int] = []
    logits = encoder.score(PAIRS, batch_size=7, progress=done.append)
    expected = np.concatenate([encoder.run([encoder.tokenize(*pair)]) for pair in PAIRS])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert sum(done) == len(PAIRS)
    assert max(done) == 7
    assert encoder.score([]).shape == (0,)


def test_pairs_are_cut_to_the_length_that_was_chosen(cross: Bundle) -> None:
    """A shorter limit than the bundle's holds from the start; a longer one does not; nothing else changes."""
    assert cross.manifest.max_tokens == 64
    assert CrossEncoder(cross, "fp32", DEVICE).max_tokens == 64
    assert CrossEncoder(cross, "fp32", DEVICE, max_tokens=1000).max_tokens == 64
    encoder = CrossEncoder(cross, "fp32", DEVICE, max_tokens=24)
    assert encoder.max_tokens == 24
    assert len(encoder.tokenize(LONG, LONG)) == 24
    assert encoder.tokenize("refund", "hello").ids.tolist() == (
        CrossEncoder(cross, "fp32", DEVICE).tokenize("refund", "hello").ids.tolist()
    )
    assert encoder.bundle.manifest.fingerprint == cross.manifest.fingerprint


def test_a_message_keeps_at_least_half_of_the_pair(cross: Bundle) -> None:
    """A short message stays whole beside a long candidate; a long one leaves the candidate half of the room."""
    encoder = CrossEncoder(cross, "fp32", DEVICE, max_tokens=24)
    message = len(encoder.tokenize("where is my order", "").ids) - 3
    pair = encoder.tokenize("where is my order", LONG)
    assert len(pair) == 24
    assert (pair.type_ids == 0).sum() == message + 2  # and what begins and ends it
    both = encoder.tokenize(LONG, LONG)
    assert len(both) == 24
    assert abs(int((both.type_ids == 0).sum()) - 12) <= 2
    assert len(encoder.tokenize(LONG, "")) == 24


def test_a_cut_bundle_is_the_same_model(cross: Bundle) -> None:
    """Cutting shorter changes the limit and nothing else, and never makes it longer."""
    assert cut_to(cross, 32).manifest.max_tokens == 32
    assert cut_to(cut_to(cross, 32), 48).manifest.max_tokens == 32
    assert cut_to(cross, 100).manifest == cross.manifest
    assert cut_to(cross, 32).variant_path("int8") == cross.variant_path("int8")


def test_threads_share_the_tokenizer(cross: Bundle) -> None:
    """Two threads tokenize and run at the same time, each on its own session, and get what one alone gets."""
    double = CrossEncoder(cross, "fp32", DEVICE, sessions=2, max_tokens=32)
    alone = CrossEncoder(cross, "fp32", DEVICE, max_tokens=32).score(PAIRS)

    def run(session: int) -> list[float]:
        return [float(double.run([double.tokenize(*pair)], session)[0]) for pair in PAIRS]

    with ThreadPoolExecutor(2) as pool:
        for logits in pool.map(run, range(2)):
            np.testing.assert_allclose(logits, alone, atol=1e-5)


def test_a_bundle_of_vectors_is_no_cross_encoder(tmp_path: Path) -> None:
    """A bi-encoder's bundle cannot be run as a cross-encoder, cut or not."""
    bundle = export_model(str(make_model(tmp_path / "model")), tmp_path / "bundle", variants=()).bundle
    with pytest.raises(ValueError, match="is a bi-encoder, not a cross-encoder"):
        CrossEncoder(bundle, "fp32", DEVICE, max_tokens=16)
