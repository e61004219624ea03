"""The one place that renders a candidate as text for the cross-encoder.

Whoever scores pairs and whoever trains on them renders alike, or the model reads what it has never seen.
"""

# Far more than a pair's tokens leave room for: what bounds the tokenizer's work, and not what decides.
MAX_QUESTION = 300
MAX_ANSWER = 500

SEPARATOR = " | "


def render(question: str, phrasing: str, answer: str) -> str:
    """A candidate as one text, of bounded length; the tokenizer cuts it to the pair's tokens, from its end.

    Args:
        question: the entry's own way to ask it.
        phrasing: the way to ask it that is most like the message; empty where that is the question.
        answer: the answer as plain text; empty where it has no words of its own.
    """
    parts = (question[:MAX_QUESTION], phrasing[:MAX_QUESTION], answer[:MAX_ANSWER])
    return SEPARATOR.join(part for part in map(str.strip, parts) if part)
