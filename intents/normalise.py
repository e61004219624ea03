"""When two texts count as the same question."""

import unicodedata


def normalise(text: str) -> str:
    """Fold what does not change a question: case, width, white space, and punctuation around it.

    "  Where's my ORDER??" and "where's my order" are the same; a text of punctuation alone stays as it is.
    """
    # Case folding takes some composed letters apart, hence the second normalisation.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = " ".join(folded.split())
    start, end = 0, len(folded)
    while start < end and _is_trimmed(folded[start]):
        start += 1
    while end > start and _is_trimmed(folded[end - 1]):
        end -= 1
    return folded[start:end] or folded


def _is_trimmed(character: str) -> bool:
    return character == " " or unicodedata.category(character).startswith("P")
