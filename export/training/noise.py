"""Messages as visitors type them: in lower case, with slips of the finger, with a greeting, or in fragments."""

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_BEFORE = (
    "hi",
    "hello",
    "hi there",
    "hey",
    "good morning",
    "please help",
    "quick question",
    "excuse me",
    "um",
    "ok so",
)
_AFTER = ("thanks", "thank you", "please", "pls", "any idea?", "thx", "can you help?", "asap", "?", "??")
_FILLERS = frozenset(
    ("a", "an", "the", "is", "are", "was", "do", "does", "did", "can", "could", "would", "will", "i", "my", "me", "to")
)
_BESIDE = dict(zip("abcdefghijklmnopqrstuvwxyz", "snvfrghjoklknbpowtdyicecux", strict=True))
_MOST_SLIPS = 2
_LEAST_WORDS = 4


def roughen(text: str, chance: np.random.Generator) -> str:
    """A text as it may have been typed in haste; never empty.

    Args:
        text: at least one character.
        chance: decides how.
    """
    kinds: tuple[Callable[[str, np.random.Generator], str], ...] = (_plain, _slip, _slip, _greet, _shorten)
    rough = kinds[chance.integers(len(kinds))](text, chance)
    if chance.random() < 1 / 2:
        rough = rough.lower()
    return rough.strip() or text


def _plain(text: str, _: np.random.Generator) -> str:
    """Lower case, without punctuation."""
    return re.sub(r"[^\w\s$€£%/@+-]", "", text).lower()


def _slip(text: str, chance: np.random.Generator) -> str:
    """One or two letters exchanged, left out, doubled, or hit beside."""
    letters = list(text)
    for _ in range(int(chance.integers(1, _MOST_SLIPS + 1))):
        places = [i for i in range(1, len(letters) - 1) if letters[i].isalpha() and letters[i + 1].isalpha()]
        if not places:
            break
        place = places[chance.integers(len(places))]
        match chance.integers(4):
            case 0:
                letters[place], letters[place + 1] = letters[place + 1], letters[place]
            case 1:
                del letters[place]
            case 2:
                letters.insert(place, letters[place])
            case _:
                letters[place] = _BESIDE.get(letters[place].lower(), letters[place])
    return "".join(letters)


def _greet(text: str, chance: np.random.Generator) -> str:
    """Something polite around it."""
    if chance.random() < 1 / 2:
        return f"{_BEFORE[chance.integers(len(_BEFORE))]} {text}"
    return f"{text.rstrip('?.! ')} {_AFTER[chance.integers(len(_AFTER))]}"


def _shorten(text: str, _: np.random.Generator) -> str:
    """Without the little words, where enough others are left."""
    words = text.split()
    kept = [word for word in words if word.lower() not in _FILLERS]
    return " ".join(kept) if len(kept) >= _LEAST_WORDS else text
