"""The messages that a model has learnt."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import BundleError
from export.learnt import LEARNT, Learnt

TEXTS = st.lists(st.text(max_size=20), max_size=30)


@given(texts=TEXTS, others=TEXTS)
def test_a_set_has_what_was_put_into_it_and_nothing_else(texts: list[str], others: list[str]) -> None:
    """Whatever the texts, in whatever order, once or twice; and two sets together have either's."""
    learnt = Learnt.of(texts)
    assert [text in learnt for text in others] == [text in set(texts) for text in others]
    both = learnt | Learnt.of(others)
    assert all(text in both for text in (*texts, *others))
    assert len(both.digests) == len({*texts, *others})


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    """And a folder that says nothing has learnt nothing."""
    assert "one" not in Learnt.read(tmp_path, error=BundleError)
    Learnt.of(["one", "two", "one"]).write(tmp_path)
    assert [text in Learnt.read(tmp_path, error=BundleError) for text in ("one", "two", "three")] == [True, True, False]
    assert b"one" not in (tmp_path / LEARNT).read_bytes()


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((\n", "floats", "objects"]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes | str) -> None:
    """With a sentence that names it; nothing in it is unpickled."""
    if content == "floats":
        np.save(tmp_path / LEARNT, np.zeros(3))
    elif content == "objects":
        np.save(tmp_path / LEARNT, np.array([{}, []], dtype=object), allow_pickle=True)
    else:
        (tmp_path / LEARNT).write_bytes(bytes(content))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=LEARNT):
        Learnt.read(tmp_path, error=BundleError)
