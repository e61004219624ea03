"""Plain and bound runs: the same results, in buffers that belong to whoever asked."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import Bundle, Variant
from export.convert import export_model
from export.golden import PAIRS, SENTENCES
from export.runtime.bi_encoder import BiEncoder
from export.runtime.buckets import Buckets
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.encoder import Encoder
from export.runtime.runner import Bound, Plain
from export.runtime.session import CPU, Device, choose_variant, find_device, gpu_count, open_session
from export.runtime.tokens import Tokens
from tests.export.models import make_model

DEVICE = Device(CPU)
ROWS, LONGEST = 4, 64


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small bi-encoder with all three inputs."""
    folder = tmp_path_factory.mktemp("small")
    return export_model(str(make_model(folder / "model")), folder / "bundle", variants=("fp32",)).bundle


@pytest.fixture(scope="module")
def small_cross(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small cross-encoder."""
    folder = tmp_path_factory.mktemp("cross")
    return export_model(str(make_model(folder / "model", labels=1)), folder / "bundle", variants=("fp32",)).bundle


@pytest.fixture(scope="module")
def plain(small: Bundle) -> Plain:
    """Runs the small bi-encoder in the shapes that come."""
    return Plain(open_session(small.variant_path("fp32"), DEVICE, threads=1))


@pytest.fixture(scope="module")
def bound(small: Bundle, plain: Plain) -> Bound:
    """Runs it in buckets, through bound buffers that all tests share."""
    buckets = Buckets.up_to(max_rows=ROWS, max_tokens=LONGEST)
    return Bound(plain.session, DEVICE, buckets, row=(small.manifest.dimension,))


def batch_of(lengths: Sequence[int], seed: int = 0) -> list[Tokens]:
    """Random inputs of these lengths."""
    random = np.random.default_rng(seed)
    return [Tokens(random.integers(0, 200, n), random.integers(0, 2, n)) for n in lengths]


@settings(deadline=None)
@given(st.lists(st.integers(1, LONGEST), min_size=1, max_size=3 * ROWS), st.integers(0, 2**32 - 1))
def test_bound_runs_give_what_plain_runs_give(plain: Plain, bound: Bound, lengths: list[int], seed: int) -> None:
    """Whatever the batch, and whatever was run in the same buffers before; larger ones are run in parts."""
    batch = batch_of(lengths, seed)
    np.testing.assert_allclose(bound.run(batch), plain.run(batch), atol=1e-5)


def test_a_result_is_the_callers_own(bound: Bound) -> None:
    """Runs in the same bucket, of other inputs or of the same, leave earlier results as they were."""
    first = bound.run(batch_of([9, 5]))
    kept = first.copy()
    second = bound.run(batch_of([9, 5], seed=1))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(bound.run(batch_of([9, 5], seed=1)), second)


def test_padding_rows_are_run_and_stay_behind(bound: Bound) -> None:
    """A batch that does not fill its bucket gives its own rows alone, and the others are numbers all the same."""
    full, part = batch_of([30, 30, 30, 30]), batch_of([20, 17, 25], seed=1)
    assert bound.shape(4, 30) == bound.shape(3, 25) == (4, 32)
    alone = bound.run(part)
    bound.run(full)
    after = bound.run(part)
    assert after.shape[0] == 3
    np.testing.assert_array_equal(after, alone)
    assert np.isfinite(bound._bindings[4, 32]._output).all()


def test_shapes(plain: Plain, bound: Bound) -> None:
    """A plain run has the batch's own shape, a bound one its bucket's; of what is run in parts, the first one's."""
    assert plain.shape(3, 17) == (3, 17)
    assert bound.shape(3, 17) == (4, 32)
    assert bound.shape(9, 17) == (4, 32)


@pytest.mark.parametrize("variant", ["fp32", "int8", "fp16"])
def test_every_variant_runs_bound(bundle: Bundle, variant: Variant) -> None:
    """Fixed shapes change no variant's vectors, one by one or in batches."""
    exact, fixed = (BiEncoder(bundle, variant, DEVICE, max_rows=8, fixed_shapes=fixed) for fixed in (False, True))
    np.testing.assert_allclose(fixed.encode(SENTENCES), exact.encode(SENTENCES), atol=2e-3)
    batch = [exact.tokenize(text) for text in SENTENCES[:5]]
    alone = np.concatenate([fixed.run([one]) for one in batch])
    np.testing.assert_allclose(fixed.run(batch), alone, atol=2e-3)


def test_cross_encoders_run_bound(small_cross: Bundle) -> None:
    """Logits come back one a pair; the pair length that was asked for is the longest shape."""
    exact, fixed = (
        CrossEncoder(small_cross, "fp32", DEVICE, max_tokens=24, max_rows=4, fixed_shapes=fixed)
        for fixed in (False, True)
    )
    scores = fixed.score(PAIRS)
    assert scores.shape == (len(PAIRS),)
    np.testing.assert_allclose(scores, exact.score(PAIRS), atol=1e-5)
    assert fixed.shape(1, 20) == (1, 24)


def bindings(encoder: Encoder) -> list[set[tuple[int, int]]]:
    """The buckets that each session has buffers for."""
    return [set(runner._bindings) for runner in encoder.runners if isinstance(runner, Bound)]


def test_a_warm_up_leaves_no_bucket_cold(small: Bundle) -> None:
    """After it, on every session, no batch within the limits comes to a bucket that has not been run."""
    encoder = BiEncoder(small, "fp32", DEVICE, sessions=2, max_rows=ROWS, fixed_shapes=True)
    measured = encoder.warm_up(max_rows=ROWS, max_batch_tokens=96)
    warm = bindings(encoder)
    assert warm == [{(m.rows, m.tokens) for m in measured}] * 2
    assert len(measured) == 2 * len(warm[0])
    for rows in range(1, ROWS + 1):
        for tokens in range(1, LONGEST + 1):
            if rows == 1 or rows * tokens <= 96:
                assert encoder.shape(rows, tokens) in warm[0]
    encoder.run(batch_of([24, 24, 24, 24]), 1)
    assert bindings(encoder) == warm


@pytest.mark.skipif(gpu_count() == 0, reason="there is no GPU")
def test_bound_runs_on_a_gpu(bundle: Bundle) -> None:
    """On CUDA vectors are those of fp32 on the CPU, as near as half precision comes, and stay the caller's own."""
    device = find_device("cuda")
    encoder = BiEncoder(bundle, choose_variant(bundle, device, "auto"), device, max_rows=8)
    warm = {(m.rows, m.tokens) for m in encoder.warm_up(max_rows=8, max_batch_tokens=512)}
    expected = BiEncoder(bundle, "fp32", DEVICE).encode(SENTENCES)
    first = encoder.encode(SENTENCES, batch_size=8)
    assert (first * expected).sum(axis=1).min() > 0.999
    assert set().union(*bindings(encoder)) >= warm
    batch = [encoder.tokenize(text) for text in SENTENCES[:7]]
    result = encoder.run(batch)
    kept = result.copy()
    encoder.run(batch[::-1])
    np.testing.assert_array_equal(result, kept)
    np.testing.assert_allclose(result, Plain(encoder.runners[0].session).run(batch), atol=5e-3)


def test_binding_is_for_devices_that_want_fixed_shapes(small: Bundle) -> None:
    """A CPU runs batches as they come."""
    [runner] = BiEncoder(small, "fp32", DEVICE).runners
    assert isinstance(runner, Plain)
    assert not Device(CPU).fixed_shapes
