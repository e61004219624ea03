"""How good the answers are: every figure from one pass over labelled messages.

See `docs/evaluation.md` for what each figure means.
"""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import date

import msgspec
import numpy as np

from export.runtime.bi_encoder import BiEncoder
from intents.cascade import Confirmation, Given, Need, NeedScores, Outcome, resolve
from intents.confirm import Score
from intents.decide import MAX_OPTIONS
from intents.index import FaqIndex
from intents.labelled import Labelled
from intents.search import Retrieved, Search


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one evaluation; shares are 0 to 1, None where there was no message of the kind.

    Attributes:
        messages, in_scope, out_of_scope: how many there were.
        accuracy_at_1, accuracy_at_3: share of in-scope messages whose entry is first, or among the first three,
            whatever the confidence.
        mrr: mean reciprocal rank of the right entry among the candidates, 0 where it is not one of them.
        answered: share of in-scope messages that got an answer or a hand-off.
        precision: share of answered messages whose entry was right; an answer to an out-of-scope message is wrong.
        clarified: share of in-scope messages that got options.
        clarify_hit: share of those whose entry was among the options.
        out_of_scope_recall: share of out-of-scope messages that got "no_match" or a hand-off.
        search_agreement: share of all messages whose top entry, before confirmation, was that of an exact scan.
        share_confirmed: share of all messages of which the cross-encoder read candidates.
        confirmations: how many messages ended with each confirmation.
    """

    messages: int
    in_scope: int
    out_of_scope: int
    accuracy_at_1: float | None = msgspec.field(name="accuracy@1")
    accuracy_at_3: float | None = msgspec.field(name="accuracy@3")
    mrr: float | None
    answered: float | None
    precision: float | None
    clarified: float | None
    clarify_hit: float | None
    out_of_scope_recall: float | None
    search_agreement: float | None
    share_confirmed: float | None
    confirmations: dict[Confirmation, int]


@dataclass(frozen=True)
class Looked:
    """One message, and what it retrieves: by the search that is judged, and by an exact scan for comparison."""

    message: Labelled
    found: Retrieved
    exact: Retrieved


@dataclass(frozen=True)
class Judged:
    """One message, and how it ended."""

    message: Labelled
    outcome: Outcome
    ranking: tuple[str, ...]
    agrees: bool | None


def look_up(
    messages: Sequence[Labelled],
    index: FaqIndex,
    search: Search,
    encoder: BiEncoder,
    progress: Callable[[int], None] | None = None,
) -> list[Looked]:
    """Encode messages and search for them."""
    vectors = encoder.encode([m.text for m in messages], progress=progress)
    found, exact = search.retrieve(vectors), index.search("exact").retrieve(vectors)
    return [Looked(*each) for each in zip(messages, found, exact, strict=True)]


def judge(looked: Sequence[Looked], index: FaqIndex, today: date, score: Score | None = None) -> list[Judged]:
    """Run every message through the cascade.

    Args:
        looked: the messages.
        index: what they are put to.
        today: entries that are not valid on this day are left out.
        score: reads pairs; it is asked once, for all messages that need it. None confirms nothing.
    """
    outcomes: dict[int, Outcome] = {}
    waiting: dict[int, tuple[NeedScores, Generator[Need, Given, Outcome]]] = {}
    for place, one in enumerate(looked):
        steps = resolve(one.message.text, index, today, confirm=score is not None)
        try:
            next(steps)
            need = steps.send(one.found)
        except StopIteration as stop:
            outcomes[place] = stop.value
        else:
            assert isinstance(need, NeedScores)  # noqa: S101 for the type checker: nothing else is left to need
            waiting[place] = need, steps
    pairs = [(need.message, text) for need, _ in waiting.values() for text in need.candidates]
    logits = score(pairs) if score is not None and pairs else np.empty(0, dtype=np.float32)
    for place, (need, steps) in waiting.items():
        own, logits = np.split(logits, [len(need.candidates)])
        outcomes[place] = _last(steps, own)
    return [_judged(one, outcomes[place], index, today) for place, one in enumerate(looked)]


def _last(steps: Generator[Need, Given, Outcome], given: Given) -> Outcome:
    try:
        need = steps.send(given)
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    raise AssertionError(f"the cascade wanted {need} on top")


def _judged(looked: Looked, outcome: Outcome, index: FaqIndex, today: date) -> Judged:
    ranked = [c.entry for c in outcome.candidates]
    agrees = None
    if outcome.decision.entry is not None and not ranked:  # it equals a phrasing, and nothing was searched
        ranked = [outcome.decision.entry]
    else:
        allowed = index.allowed_on(today)
        found, exact = (index.scorer.candidates(one, allowed) for one in (looked.found, looked.exact))
        agrees = [c.entry for c in found[:1]] == [c.entry for c in exact[:1]]
    return Judged(looked.message, outcome, tuple(index.faq.entries[entry].id for entry in ranked), agrees)


def summarise(judged: Sequence[Judged], index: FaqIndex) -> Report:
    """The figures of judged messages."""
    ours = [j for j in judged if j.message.expected is not None]
    others = [j for j in judged if j.message.expected is None]
    ranks = [j.ranking.index(j.message.expected) + 1 if j.message.expected in j.ranking else 0 for j in ours]
    named = [j for j in ours if j.outcome.decision.entry is not None]
    wrongly = [j for j in others if j.outcome.decision.kind == "answer"]
    right = [j for j in named if _id(index, j) == j.message.expected]
    clarified = [j for j in ours if j.outcome.decision.kind == "clarify"]
    hits = [
        j
        for j in clarified
        if j.message.expected in [index.faq.entries[o.entry].id for o in j.outcome.decision.options]
    ]
    silent = [j for j in others if j.outcome.decision.kind in {"no_match", "handoff"}]
    compared = [j for j in judged if j.agrees is not None]
    return Report(
        messages=len(judged),
        in_scope=len(ours),
        out_of_scope=len(others),
        accuracy_at_1=_share(sum(rank == 1 for rank in ranks), len(ours)),
        accuracy_at_3=_share(sum(1 <= rank <= MAX_OPTIONS for rank in ranks), len(ours)),
        mrr=_share(sum(1 / rank for rank in ranks if rank), len(ours)),
        answered=_share(len(named), len(ours)),
        precision=_share(len(right), len(named) + len(wrongly)),
        clarified=_share(len(clarified), len(ours)),
        clarify_hit=_share(len(hits), len(clarified)),
        out_of_scope_recall=_share(len(silent), len(others)),
        search_agreement=_share(sum(bool(j.agrees) for j in compared), len(compared)),
        share_confirmed=_share(sum(j.outcome.scored > 0 for j in judged), len(judged)),
        confirmations=dict(Counter(j.outcome.confirmation for j in judged).most_common()),
    )


def _id(index: FaqIndex, judged: Judged) -> str | None:
    entry = judged.outcome.decision.entry
    return None if entry is None else index.faq.entries[entry].id


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
