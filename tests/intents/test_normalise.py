"""When two texts count as the same question."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from intents.normalise import normalise


@given(st.text())
@example("\u03b1\u0345\u0308")  # folding its case takes the letter apart
@example(". \u00a8 .")  # its width is folded into a space and a mark
def test_normalising_twice_changes_nothing(text: str) -> None:
    """A normalised text is its own normal form, so texts can be compared whichever way they came."""
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Where Is My ORDER", "where is my order"),
        ("STRASSE", normalise("straße")),
        ("ÉTÉ", normalise("e\u0301te\u0301")),
        ("\uff52\uff45\uff46\uff55\uff4e\uff44", "refund"),
        ("\u2460 item", "1 item"),
        ("\u210cello", "hello"),
        ("  where\tis \u00a0my\r\norder  ", "where is my order"),
        ("¿where is my order??!", "where is my order"),
        ("«refund» ", "refund"),
        ('"( refund )"...', "refund"),
        ("where's my order", "where's my order"),
        ("9.99/month", "9.99/month"),
        ("what is 20 %", "what is 20"),
        ("注文をキャンセルしたい。", "注文をキャンセルしたい"),
    ],
)
def test_folds_what_does_not_change_a_question(text: str, expected: str) -> None:
    """Case, width, composition, white space, and punctuation around a text are folded; inside it punctuation stays."""
    assert normalise(text) == expected


@pytest.mark.parametrize("text", ["?", "???", "...", "¿?", "-"])
def test_punctuation_alone_stays(text: str) -> None:
    """A text of punctuation alone is still a text, and differs from other punctuation."""
    assert normalise(text) == text


def test_symbols_are_not_punctuation() -> None:
    """Emoji and currency signs carry meaning and are kept."""
    assert normalise("👍") == "👍"
    assert normalise("€5") == "€5"


@given(st.text(alphabet=st.characters(categories=["L", "N"]), min_size=1), st.sampled_from(["?", "!", "...", " ", "«"]))
def test_punctuation_around_a_text_changes_nothing(text: str, around: str) -> None:
    """Whatever the words, punctuation before and after them is trimmed."""
    assert normalise(f"{around} {text} {around}") == normalise(text)
