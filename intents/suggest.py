"""Entries for what a visitor is still typing: those whose question continues it.

Two sorted arrays, searched by bisection: the questions, and every place in them where a later word begins (a suffix
array of words, as two integers each). A look-up costs some tens of comparisons, however many entries there are.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from intents.candidates import Mask
from intents.entries import Entry
from intents.normalise import normalise

MAX_SUGGESTIONS = 8
# How many places are looked at for one text. More match only where it is a letter or two, and then any eight will do;
# fewer are found than there are only where so many entries in a row may not be answered on that day.
MOST_LOOKED_AT = 2000

_LATER_WORD = re.compile(r"(?<=[\s/([{\"“«-])[^\s]")
_SENTINEL = " "  # ends every question, so that "order " finds the one that ends in "order" and not "orders"


class Suggester:
    """Finds entries by the beginning of their question, or of a word in it.

    Entries that are disabled are left out, and so is small talk, which is never offered.

    Args:
        entries: of the FAQ, in its order; entries are named by their position in it.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._texts = {
            position: normalise(entry.question) + _SENTINEL
            for position, entry in enumerate(entries)
            if entry.enabled and entry.kind != "smalltalk"
        }
        self._questions = array("q", sorted(self._texts, key=self._texts.__getitem__))
        words = sorted(
            (text[start:], position, start) for position, text in self._texts.items() for start in _later_words(text)
        )
        self._owners = array("q", (position for _, position, _ in words))
        self._starts = array("q", (start for _, _, start in words))

    def find(self, text: str, allowed: Mask | None = None) -> list[int]:
        """Entries whose question begins with a text, then those in which a later word does, `MAX_SUGGESTIONS` at most.

        Either kind is in the order of the alphabet from the match on, and of the FAQ where that is equal. Case, width,
        and punctuation around the text do not matter.

        Args:
            text: what has been typed so far; a text without a word finds nothing.
            allowed: (entries,) booleans, which entries may be answered; None is all.
        """
        prefix = normalise(text)
        if not any(character.isalnum() for character in prefix):
            return []
        if text[-1].isspace():
            prefix += _SENTINEL
        found: dict[int, None] = {}
        for position in self._matches(prefix):
            if allowed is None or allowed[position]:
                found[position] = None
                if len(found) == MAX_SUGGESTIONS:
                    break
        return list(found)

    def _matches(self, prefix: str) -> Iterator[int]:
        texts, owners, starts = self._texts, self._owners, self._starts
        yield from _run(prefix, self._questions, lambda place: texts[self._questions[place]], self._questions)
        yield from _run(prefix, owners, lambda place: texts[owners[place]][starts[place] :], owners)


def _run(prefix: str, places: Sequence[int], text_at: Callable[[int], str], positions: Sequence[int]) -> Iterator[int]:
    """The positions at all places, in a sorted run of them, whose text begins with a prefix."""
    first = bisect_left(range(len(places)), prefix, key=text_at)
    for place in range(first, min(len(places), first + MOST_LOOKED_AT)):
        if not text_at(place).startswith(prefix):
            return
        yield positions[place]


def _later_words(text: str) -> Iterator[int]:
    """Where words begin, the first one aside."""
    return (match.start() for match in _LATER_WORD.finditer(text))
