"""A candidate as text for the cross-encoder."""

import pytest

from export.runtime.render import MAX_ANSWER, MAX_QUESTION, SEPARATOR, render


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("Are you open?", "opening hours", "From 9 to 18."), "Are you open? | opening hours | From 9 to 18."),
        (("Are you open?", "", "From 9 to 18."), "Are you open? | From 9 to 18."),
        (("Are you open?", "opening hours", ""), "Are you open? | opening hours"),
        (("Are you open?", "", ""), "Are you open?"),
        (("", "", "From 9 to 18."), "From 9 to 18."),
        ((" Are you open?\n", " ", "\tFrom 9 to 18. "), "Are you open? | From 9 to 18."),
        (("", "", ""), ""),
    ],
)
def test_what_there_is_is_joined(parts: tuple[str, str, str], text: str) -> None:
    """Question, best phrasing and answer stand in this order; what is empty leaves no trace."""
    assert render(*parts) == text


def test_the_text_is_bounded() -> None:
    """However long a FAQ's texts are, what the tokenizer gets is not."""
    text = render("q" * 10_000, "p" * 10_000, "a" * 10_000)
    assert text == SEPARATOR.join(("q" * MAX_QUESTION, "p" * MAX_QUESTION, "a" * MAX_ANSWER))
