"""Running a bundle: tokens, and the encoder's contract."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from export.bundle import Bundle
from export.errors import BundleError
from export.golden import SENTENCES
from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.encoder import by_length
from export.runtime.session import (
    CPU,
    Device,
)
from export.runtime.tokens import Tokens, feed, fill, open_tokenizer, tokens_of

# The first numbers of vectors as torch computes them, rounded.
GOLDEN = {
    "where is my order": (-0.00621, -0.02604, 0.06837, 0.01874, 0.00462, 0.02651, -0.02241, -0.01455),
    "How do I return a gift that I got without the receipt?": (
        *(-0.04719, 0.1242, 0.01336, -0.00889, -0.03407, 0.05369, 0.04129, -0.0154),
    ),
    "注文をキャンセルしたいです 👍": (-0.00984, 0.09701, 0.08593, -0.01084, -0.07459, 0.05533, 0.08464, 0.05264),
}


def tokens(*ids: int, types: Sequence[int] | None = None) -> Tokens:
    """One tokenized input."""
    return Tokens(np.array(ids, dtype=np.int64), np.array(types or [0] * len(ids), dtype=np.int64))


def altered(bundle: Bundle, **fields: Any) -> Bundle:
    """The bundle with other fields in its manifest."""
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, **fields))


def test_golden_vectors(encoder: BiEncoder) -> None:
    """The default model's vectors are those of the original, in any script."""
    vectors = encoder.encode(list(GOLDEN))
    np.testing.assert_allclose(vectors[:, :8], list(GOLDEN.values()), atol=1e-4)


def test_vectors_have_unit_length(encoder: BiEncoder) -> None:
    """Every text, a single character or a paragraph, becomes a unit vector of float32."""
    vectors = encoder.encode(SENTENCES)
    assert vectors.shape == (len(SENTENCES), encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_vector_does_not_depend_on_its_batch(encoder: BiEncoder) -> None:
    """A text alone and padded in a batch of longer ones has the same vector."""
    batch = [encoder.tokenize(text) for text in SENTENCES[:16]]
    together = encoder.run(batch)
    alone = np.concatenate([encoder.run([one]) for one in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_encoding_keeps_the_order_of_texts(encoder: BiEncoder) -> None:
    """Texts are run in batches of like length, and come back in the order in which they were given."""
    done: list[int] = []
    vectors = encoder.encode(SENTENCES, batch_size=5, progress=done.append)
    expected = np.concatenate([encoder.run([encoder.tokenize(text)]) for text in SENTENCES])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert done == [5] * (len(SENTENCES) // 5) + [len(SENTENCES) % 5]


def test_encoding_nothing_gives_nothing(encoder: BiEncoder) -> None:
    """No texts are no vectors, of the right width."""
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_batches_are_alike_in_length() -> None:
    """The longest go first, equal ones in their order, and every input is in one batch."""
    items = [tokens(*range(length)) for length in (2, 9, 4, 9, 1)]
    assert list(by_length(items, 2)) == [[1, 3], [2, 0], [4]]
    assert list(by_length([], 2)) == []


def test_long_texts_are_cut(encoder: BiEncoder) -> None:
    """A text beyond the model's limit is cut to it, special tokens included: what follows changes nothing."""
    limit = encoder.bundle.manifest.max_tokens
    long = encoder.tokenize("order " * 1000)
    assert len(long) == limit
    assert long.ids[-1] == encoder.tokenize("order").ids[-1]
    assert len(encoder.tokenize("")) == 2
    vectors = encoder.encode(["order " * 1000 + "refund", "order " * 1000 + "weather"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


def test_the_bundle_says_where_to_cut(bundle: Bundle) -> None:
    """A bundle's own limit holds; of a pair the longer text is cut first."""
    tokenizer = open_tokenizer(altered(bundle, max_tokens=12))
    assert len(tokens_of(tokenizer.encode("order " * 50))) == 12
    pair = tokens_of(tokenizer.encode("where is it", "order " * 50))
    assert len(pair) == 12
    assert pair.type_ids.tolist() == [0] * 5 + [1] * 7


def test_the_tokenizer_does_not_pad(bundle: Bundle) -> None:
    """Texts of a batch keep their own lengths: padding is done in numpy."""
    lengths = [len(e.ids) for e in open_tokenizer(bundle).encode_batch(["a", "where is my order"])]
    assert lengths == [3, 6]


def test_the_prefix_goes_before_every_text(bundle: Bundle, encoder: BiEncoder) -> None:
    """A bundle with a prefix encodes texts as if it had been typed before each."""
    prefixed = BiEncoder(altered(bundle, prefix="query: "), "fp32", Device(CPU))
    assert prefixed.tokenize("refund").ids.tolist() == encoder.tokenize("query: refund").ids.tolist()
    np.testing.assert_allclose(prefixed.encode(["refund"]), encoder.encode(["query: refund"]), atol=1e-5)


def test_batches_are_padded_on_the_right() -> None:
    """Padding is zeros that the mask hides, and only the inputs that a session declares are fed."""
    batch = [tokens(5, 6, 7, types=[0, 0, 1]), tokens(8)]
    arrays = feed(batch, ["input_ids", "attention_mask", "token_type_ids"])
    assert arrays["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert arrays["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert all(array.dtype == np.int64 for array in arrays.values())
    assert list(feed(batch, ["attention_mask"])) == ["attention_mask"]


def test_buffers_are_filled_anew() -> None:
    """Whatever a buffer held is gone, and each row of padding has one token to attend to."""
    arrays = {name: np.full((3, 4), 9) for name in ("input_ids", "attention_mask", "token_type_ids")}
    fill(arrays, [tokens(5, 6, 7, types=[0, 1, 1])])
    assert arrays["input_ids"].tolist() == [[5, 6, 7, 0], [0] * 4, [0] * 4]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert arrays["token_type_ids"].tolist() == [[0, 1, 1, 0], [0] * 4, [0] * 4]


def test_threads_share_the_tokenizer_and_own_a_session_each(bundle: Bundle, encoder: BiEncoder) -> None:
    """Two threads that tokenize and run at the same time, each on its session, get what one alone gets."""
    double = BiEncoder(bundle, "fp32", Device(CPU), sessions=2)
    assert double.sessions == 2
    start = threading.Barrier(2)

    def run(number: int) -> list[Any]:
        start.wait()
        return [double.run([double.tokenize(text)], number)[0] for text in SENTENCES[:12]]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(2)))
    expected = encoder.encode(SENTENCES[:12])
    for result in results:
        np.testing.assert_allclose(np.stack(result), expected, atol=1e-5)


def test_another_kind_of_bundle_is_a_mistake_of_the_caller(bundle: Bundle) -> None:
    """A bi-encoder's bundle cannot be run as a cross-encoder."""
    with pytest.raises(ValueError, match="is a bi-encoder, not a cross-encoder"):
        CrossEncoder(bundle, "fp32", Device(CPU))


def test_a_file_that_is_no_tokenizer_is_named(bundle: Bundle, tmp_path: Path) -> None:
    """A tokenizer that cannot be read is a sentence with its path."""
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        open_tokenizer(replace(bundle, folder=tmp_path))
