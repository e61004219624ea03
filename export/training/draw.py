"""What is read of messages and their candidates, one epoch after the other.

What is read of a message and of its candidates is drawn anew in every epoch: some of the candidates, some of what there
is to say of each, the message as a visitor may have typed it, and now and then without its right candidate. It depends
on the seed and the epoch alone, so that training can go on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.groups import Candidate, Group
from export.runtime.render import render
from export.training.noise import roughen


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is read of a group at one time.

    Attributes:
        message: perhaps roughened.
        texts: the candidates, at least one.
        right: which of them answers it, or None.
    """

    message: str
    texts: tuple[str, ...]
    right: int | None

    def length(self) -> int:
        """Characters of the longest pair, more or less: what it costs to read."""
        return len(self.message) + max(map(len, self.texts))


@dataclass(frozen=True, slots=True)
class Chances:
    """How often what is drawn.

    Attributes:
        candidates: how many are read of a message; at least one.
        nearest: they are drawn from so many of the nearest, those with higher scores more often.
        without: how often a message is read without its right candidate, as if the FAQ lacked it.
        noise: how often a message is roughened.
        parts: how often the answer is left out, and how often the phrasing or the question is, of two.
        other: how often another of an entry's ways to ask is read for its question: that of an intent data set is no
            more than one of its messages.
    """

    candidates: int = 4
    nearest: int = 8
    without: float = 0.15
    noise: float = 0.4
    parts: float = 0.4
    other: float = 0.3


def draw(groups: Sequence[Group], chances: Chances, *, seed: int, epoch: int) -> list[Drawn]:
    """One epoch's view of all groups, in random order."""
    chance = np.random.default_rng([seed, epoch])
    return [_draw(groups[i], chances, chance) for i in chance.permutation(len(groups))]


def as_served(groups: Sequence[Group]) -> list[Drawn]:
    """All groups as a server shows them: every candidate, whole, in order."""
    return [Drawn(group.message, tuple(c.text() for c in group.candidates), group.right) for group in groups]


def _draw(group: Group, chances: Chances, chance: np.random.Generator) -> Drawn:
    wrong = [place for place in range(len(group.candidates)) if place != group.right][: chances.nearest]
    right = group.right
    if right is not None and wrong and chance.random() < chances.without:
        right = None
    count = min(chances.candidates - (right is not None), len(wrong))
    odds = np.linspace(2.0, 1.0, len(wrong))
    chosen = list(chance.choice(wrong, count, replace=False, p=odds / odds.sum())) if count else []
    shown = [*([] if right is None else [right]), *chosen]
    order = chance.permutation(len(shown))
    message = roughen(group.message, chance) if chance.random() < chances.noise else group.message
    parts = chance.random() < chances.parts, chance.random() < chances.parts, chance.random() < 1 / 2
    candidates = [group.candidates[shown[i]] for i in order]
    if chance.random() < chances.other:
        candidates = [_otherwise(candidate, group.message, chance) for candidate in candidates]
    texts = tuple(_partly(candidate, *parts) for candidate in candidates)
    return Drawn(message, texts, None if right is None else int(np.flatnonzero(order == 0)[0]))


def _otherwise(candidate: Candidate, message: str, chance: np.random.Generator) -> Candidate:
    """A candidate with another way to ask for its question, if there is one."""
    if not candidate.ways:
        return candidate
    way = candidate.ways[chance.integers(len(candidate.ways))]
    return candidate if way in {message, candidate.phrasing} else replace(candidate, question=way)


def _partly(candidate: Candidate, no_answer: bool, one_way: bool, own: bool) -> str:  # noqa: FBT001 drawn together
    """A candidate without its answer, or with one of its ways to ask; never without all."""
    question, phrasing, answer = candidate.question, candidate.phrasing, candidate.answer
    if one_way and question and phrasing:
        question, phrasing = (question, "") if own else ("", phrasing)
    if no_answer and (question or phrasing):
        answer = ""
    return render(question, phrasing, answer)
