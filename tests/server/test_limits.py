"""Guards `server.limits`: what one message may ask for."""

import pytest

from server.errors import InvalidBudget, InvalidText
from server.limits import check_ask, check_length, seconds_for
from server.messages import Ask, Limits

LIMITS = Limits(max_text=5, max_frame=256, max_in_flight=1, min_budget_ms=10, max_budget_ms=1000, budget_ms=100)


@pytest.mark.parametrize(
    ("budget", "seconds"), [(None, 0.1), (10, 0.01), (1000, 1.0), (9, 0.01), (-(10**400), 0.01), (10**400, 1.0)]
)
def test_seconds(budget: int | None, seconds: float) -> None:
    """A message has its own budget, the server's where it brings none, and the nearest where its own is refused."""
    assert seconds_for(Ask("1", "hi", budget), LIMITS) == seconds


@pytest.mark.parametrize(("text", "budget"), [("x", None), ("🦭" * 5, 10), ("hello", 1000)])
def test_what_may_be_asked(text: str, budget: int | None) -> None:
    """Both ends of a range are inside of it; a character is a code point."""
    check_ask(Ask("1", text, budget), LIMITS)


@pytest.mark.parametrize("text", ["", " \n", "x" * 6])
def test_unfit_texts(text: str) -> None:
    """A text that is empty or too long cannot be asked."""
    with pytest.raises(InvalidText):
        check_ask(Ask("1", text), LIMITS)


@pytest.mark.parametrize("budget", [9, 1001, 0, -1])
def test_unfit_budgets(budget: int) -> None:
    """A budget out of range is refused, with the range."""
    with pytest.raises(InvalidBudget, match=f"budget_ms is {budget}; it may be 10 to 1000"):
        check_ask(Ask("1", "hi", budget), LIMITS)


def test_what_is_being_typed_may_be_empty() -> None:
    """Only its length counts."""
    check_length("", LIMITS)
    with pytest.raises(InvalidText, match="6 characters; at most 5"):
        check_length("x" * 6, LIMITS)
