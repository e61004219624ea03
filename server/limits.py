"""What one message may ask for; pure."""

from server.errors import InvalidBudget, InvalidText
from server.messages import Ask, Limits


def seconds_for(ask: Ask, limits: Limits) -> float:
    """How long the reply may take, in seconds.

    A budget out of range counts as the nearest one inside: it is refused, but not late for it; and it may be more than
    a float holds.
    """
    return min(max(_budget_of(ask, limits), limits.min_budget_ms), limits.max_budget_ms) / 1000


def check_ask(ask: Ask, limits: Limits) -> None:
    """Refuse what cannot be asked.

    Raises:
        InvalidText: the text is empty or too long.
        InvalidBudget: the budget is out of range.
    """
    if not ask.text.strip():
        raise InvalidText("text is empty")
    check_length(ask.text, limits)
    budget = _budget_of(ask, limits)
    if not limits.min_budget_ms <= budget <= limits.max_budget_ms:
        raise InvalidBudget(f"budget_ms is {budget}; it may be {limits.min_budget_ms} to {limits.max_budget_ms}")


def check_length(text: str, limits: Limits) -> None:
    """Refuse what is too long.

    Raises:
        InvalidText: it is.
    """
    if len(text) > limits.max_text:
        raise InvalidText(f"text has {len(text)} characters; at most {limits.max_text} are read")


def _budget_of(ask: Ask, limits: Limits) -> int:
    return limits.budget_ms if ask.budget_ms is None else ask.budget_ms
