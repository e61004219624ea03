"""Which entries are taken for which others, with the messages that were."""

from collections.abc import Sequence
from dataclasses import dataclass

from intents.evaluate import Judged

MOST = 15
EXAMPLES = 3


@dataclass(frozen=True)
class Confusion:
    """Messages of one entry, or of none, that had another one first.

    Attributes:
        expected: id of the entry that answers them; None for out-of-scope messages.
        found: id of the entry that came first.
        count: how many there are.
        examples: some of them, the most confidently wrong first.
    """

    expected: str | None
    found: str
    count: int
    examples: tuple[Judged, ...]


def confusions(judged: Sequence[Judged], most: int = MOST, examples: int = EXAMPLES) -> list[Confusion]:
    """The pairs that are confused most often, the most frequent first.

    In-scope messages count whatever was decided, out-of-scope ones only where they were answered.
    """
    groups: dict[tuple[str | None, str], list[Judged]] = {}
    for one in judged:
        if one.ranking and not one.is_right and (one.in_scope or one.is_answered):
            groups.setdefault((one.message.expected, one.ranking[0]), []).append(one)
    # Of pairs that are as frequent, those come first that were believed more.
    for members in groups.values():
        members.sort(key=lambda one: -one.confidence)
    order = sorted(groups.items(), key=lambda pair: (-len(pair[1]), -pair[1][0].confidence))
    return [Confusion(*ids, len(members), _distinct(members, examples)) for ids, members in order[:most]]


def _distinct(members: Sequence[Judged], most: int) -> tuple[Judged, ...]:
    """The first of each text: in a few-shot evaluation every draw has the same messages."""
    first: dict[str, Judged] = {}
    for one in members:
        first.setdefault(one.message.text, one)
    return tuple(first.values())[:most]
