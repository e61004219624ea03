"""What a cross-encoder makes of a calibration's messages, each with its first candidates.

It reads of a candidate what a server would show it, without the message itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.learnt import Learnt
from intents.confirm import Pair, Score
from intents.entries import Entry
from intents.errors import FaqIndexError
from intents.holdout import MIN_IN_SCOPE, SEED, Messages, Posed
from intents.items import Item, answer_of, rendered
from intents.normalise import normalise

MAX_OF_A_KIND = 500
KNOWN = (
    "the cross-encoder was trained on all but {few} of the phrasings that it is judged by: what confirmation is worth, "
    "and confidence after it, are too high; train it on fewer, or build without it"
)


@dataclass(frozen=True)
class Read:
    """Messages, and what the cross-encoder made of them.

    Attributes:
        messages: a sample of a calibration's.
        logits: of each message's first candidates, in the order of `messages.all()`.
        pairs: how many different ones were scored.
        notes: what an operator should know about the sample.
    """

    messages: Messages
    logits: list[list[float]]
    pairs: int
    notes: tuple[str, ...] = ()


def read_messages(
    messages: Messages,
    entries: Sequence[Entry],
    items: Sequence[Item],
    candidates: int,
    score: Score,
    learnt: Learnt,
) -> Read:
    """Let a cross-encoder read a sample of messages with their candidates.

    Those that it was trained on are left out: it knows them by heart.

    Args:
        messages: a calibration's.
        entries: the FAQ's.
        items: the index's.
        candidates: how many of each message's to read.
        score: reads pairs; it is asked once.
        learnt: what the cross-encoder was trained on.

    Raises:
        FaqIndexError: a logit is not a number, or infinite.
    """
    new, notes = _new_to(learnt, messages)
    sample = _sample(new)
    answers = {position: answer_of(entry) for position, entry in enumerate(entries)}

    def pairs_of(posed: Posed) -> list[Pair]:
        return [
            (posed.text, _shown(entries[c.entry], items[c.item], answers[c.entry], posed))
            for c in posed.candidates[:candidates]
        ]

    asked = [pairs_of(posed) for posed in sample.all()]
    distinct = list(dict.fromkeys(pair for pairs in asked for pair in pairs))
    logits = score(distinct)
    if not np.isfinite(logits).all():
        raise FaqIndexError("the cross-encoder gives logits that are no numbers; name another one, or build without")
    of = dict(zip(distinct, logits.tolist(), strict=True))
    return Read(sample, [[of[pair] for pair in pairs] for pairs in asked], len(distinct), notes)


def _new_to(learnt: Learnt, messages: Messages) -> tuple[Messages, tuple[str, ...]]:
    """The messages that a cross-encoder has not learnt; where they are too few, all of them, and what that means."""

    def new(kind: Sequence[Posed]) -> list[Posed]:
        return [posed for posed in kind if normalise(posed.text) not in learnt]

    in_scope = new(messages.in_scope)
    if len(in_scope) < min(MIN_IN_SCOPE, len(messages.in_scope)):
        return messages, (KNOWN.format(few=len(in_scope)),)
    return replace(messages, in_scope=in_scope, near=new(messages.near)), ()


def _shown(entry: Entry, nearest: Item, answer: str | None, posed: Posed) -> str:
    phrasing = nearest.text if nearest.role == "phrasing" else None
    return rendered(entry, phrasing, answer, without=posed.text)


def _sample(messages: Messages) -> Messages:
    """A seeded sample: of each kind so many."""
    chooser = np.random.default_rng(SEED)
    return Messages(
        in_scope=[messages.in_scope[i] for i in _chosen(chooser, len(messages.in_scope))],
        near=[messages.near[i] for i in _chosen(chooser, len(messages.near))],
        far=[messages.far[i] for i in _chosen(chooser, len(messages.far))],
    )


def _chosen(chooser: np.random.Generator, count: int) -> list[int]:
    return sorted(chooser.permutation(count)[:MAX_OF_A_KIND].tolist())
