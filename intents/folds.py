"""Parts of a FAQ to build an index of, and the rest of it as messages that the index has not seen.

By phrasings, what is left out is in scope; by whole entries, it is near out of scope, for the FAQ did answer it. A few
phrasings of each entry make a few-shot FAQ.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from msgspec import structs

from intents.entries import Entry, Faq
from intents.items import ways_to_ask
from intents.labelled import Labelled
from intents.normalise import normalise


@dataclass(frozen=True)
class Fold:
    """A part of a FAQ, and messages that it lacks.

    Attributes:
        faq: what to build; entries stand where they stood, those that are left out are disabled.
        messages: what to ask.
    """

    faq: Faq
    messages: tuple[Labelled, ...]


def by_phrasings(faq: Faq, folds: int, today: date, chance: np.random.Generator) -> list[Fold]:
    """Leave out every phrasing once, with as few others of its entry as can be.

    Each fold leaves at least one phrasing of every entry: one with a single phrasing stays, and is not asked.

    Args:
        faq: the whole of it.
        folds: how many parts, at least 2; there are fewer where there are fewer phrasings.
        today: entries that are not valid on this day are not asked.
        chance: deals the phrasings.
    """
    away: list[dict[int, set[str]]] = [{} for _ in range(folds)]
    turn = 0
    for position, entry in enumerate(faq.entries):
        ways = _ways(entry)
        if _is_asked(entry, today) and len(ways) > 1:
            # Dealt in turn: the phrasings of an entry meet in one fold only where it has more of them than folds.
            for place in chance.permutation(len(ways)):
                away[turn % folds].setdefault(position, set()).add(ways[place])
                turn += 1
    return [_without_phrasings(faq, texts) for texts in away if texts]


def _without_phrasings(faq: Faq, away: dict[int, set[str]]) -> Fold:
    entries, messages = list(faq.entries), []
    for position, texts in away.items():
        entry = entries[position]
        gone = {normalise(text) for text in texts}
        entries[position] = _asked_by(entry, [text for text in ways_to_ask(entry) if normalise(text) not in gone])
        messages += [Labelled(text, entry.id) for text in _ways(entry) if text in texts]
    return Fold(structs.replace(faq, entries=tuple(entries)), tuple(messages))


def by_entries(faq: Faq, folds: int, today: date, chance: np.random.Generator) -> list[Fold]:
    """Leave out every entry once, and ask its phrasings, which nothing answers then.

    Args:
        faq: the whole of it; with a single entry there are no folds.
        folds: how many parts, at least 2; there are fewer where there are fewer entries.
        today: entries that are not valid on this day are not asked.
        chance: deals the entries.
    """
    asked = [position for position, entry in enumerate(faq.entries) if _is_asked(entry, today)]
    if len(asked) < 2:
        return []
    parts = np.array_split(chance.permutation(asked), folds)
    return [_without_entries(faq, part.tolist()) for part in parts if len(part)]


def _without_entries(faq: Faq, away: Collection[int]) -> Fold:
    entries = [
        structs.replace(entry, enabled=entry.enabled and position not in away)
        for position, entry in enumerate(faq.entries)
    ]
    messages = [Labelled(text, None) for position in sorted(away) for text in _ways(faq.entries[position])]
    return Fold(structs.replace(faq, entries=tuple(entries)), tuple(messages))


def few_shot(faq: Faq, shots: int, chance: np.random.Generator) -> Faq:
    """The FAQ with so many phrasings of each entry, drawn at random, the question among them.

    The first that is drawn stands for a question that is not. Entries with fewer phrasings keep them all.
    """
    entries = []
    for entry in faq.entries:
        ways = _ways(entry)
        places = chance.permutation(len(ways))[:shots].tolist()
        drawn = [ways[place] for place in sorted(places, key=bool)]  # the question stands at place 0
        entries.append(_asked_by(entry, drawn) if len(ways) > shots else entry)
    return structs.replace(faq, entries=tuple(entries))


def _is_asked(entry: Entry, today: date) -> bool:
    return entry.enabled and entry.is_valid_on(today)


def _ways(entry: Entry) -> list[str]:
    """The phrasings of an entry that a server tells apart, its question first."""
    first: dict[str, str] = {}
    for text in ways_to_ask(entry):
        first.setdefault(normalise(text), text)
    return list(first.values())


def _asked_by(entry: Entry, ways: Sequence[str]) -> Entry:
    """The entry with these phrasings alone, the first of them as its question."""
    return structs.replace(entry, question=ways[0], phrasings=tuple(ways[1:]))
