"""Messages as visitors type them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.training.noise import roughen

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
QUESTION = "Could you tell me when the order that I placed on Monday will arrive?"


def roughened(text: str, times: int = 300) -> list[str]:
    """A text as many visitors would type it."""
    chance = np.random.default_rng(1)
    return [roughen(text, chance) for _ in range(times)]


@given(text=TEXTS, seed=st.integers(0, 2**32 - 1))
def test_no_message_becomes_empty(text: str, seed: int) -> None:
    """Whatever is left out of a text, something stays."""
    assert roughen(text, np.random.default_rng(seed))


@given(text=TEXTS, seed=st.integers(0, 2**32 - 1))
def test_chance_alone_decides(text: str, seed: int) -> None:
    """The same text at the same chance becomes the same."""
    assert roughen(text, np.random.default_rng(seed)) == roughen(text, np.random.default_rng(seed))


def test_a_message_stays_legible() -> None:
    """Most of its words stay as they are, apart from case and punctuation, and what comes on top is a few words."""
    known = {word.strip("?").lower() for word in QUESTION.split()}
    for text in roughened(QUESTION):
        words = [word.strip("?").lower() for word in text.split()]
        assert len(known.intersection(words)) >= 0.5 * len(known)
        assert len(words) <= len(QUESTION.split()) + 4


def test_every_kind_of_haste_occurs() -> None:
    """Lower case without punctuation, slips of the finger, a greeting or thanks, and fragments."""
    found = roughened(QUESTION)
    plain = QUESTION.lower().replace("?", "")
    assert plain in found
    assert any(text.lower().startswith(("hi ", "hello ", "hey ")) for text in found)
    assert any(text.lower().endswith(("thanks", "thx", "please")) for text in found)
    assert any(len(text.split()) < len(QUESTION.split()) for text in found), "fragments"
    assert any(len(text.split()) == len(QUESTION.split()) and text.lower() != QUESTION.lower() for text in found)
    assert any(text[0] == "C" for text in found), "not all is lower case"


def test_what_has_no_letters_is_left_alone() -> None:
    """A message of signs keeps them."""
    assert {text.strip() for text in roughened("???")} >= {"???"}
    assert all("48213" in text for text in roughened("48213"))
