"""What an operator can choose between, side by side on the same messages.

    alone               the bi-encoder alone
    confirmer_alone     all candidates that the cross-encoder may read, ranked by its logits; nothing decides
    cascade             as served: only what confirmation may change is confirmed
    full_confirmation   every message is confirmed, whatever the bi-encoder's confidence

Every pair is read once. Those of the cascade come first, rank by rank, so that the time of each system, and of a
cascade that reads fewer candidates, is measured and not reckoned from another's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from time import perf_counter
from typing import Literal, Protocol

import numpy as np
from msgspec import structs

from intents.build import Reporter
from intents.cascade import NeedScores
from intents.confirm import Pair
from intents.evaluate import Judged, Looked, by_logits, judge, needed
from intents.index import FaqIndex
from intents.search import Floats

System = Literal["alone", "confirmer_alone", "cascade", "full_confirmation"]

TITLES: dict[System, str] = {
    "alone": "bi-encoder alone",
    "confirmer_alone": "confirmer alone",
    "cascade": "cascade",
    "full_confirmation": "full confirmation",
}


class Reader(Protocol):
    """Reads pairs of a message and a candidate: a cross-encoder."""

    def score(self, pairs: Sequence[Pair], *, progress: Callable[[int], None] | None = None) -> Floats:
        """Give (n,) logits of n pairs; `progress` is called with the number of pairs just read."""
        ...


@dataclass(frozen=True)
class Run:
    """One system's messages.

    Attributes:
        judged: how each ended.
        seconds: of wall clock that models took for all of them.
    """

    judged: tuple[Judged, ...]
    seconds: float


@dataclass(frozen=True)
class Trial:
    """The same messages put to every system.

    Attributes:
        runs: by system; the bi-encoder alone where there is no cross-encoder.
        depths: the cascade that reads one candidate of a message, two, and so on; empty without a cross-encoder.
    """

    runs: Mapping[System, Run]
    depths: tuple[Run, ...] = ()

    @property
    def served(self) -> Run:
        """The system that a server of this index would be."""
        return self.runs.get("cascade", self.runs["alone"])


def pooled(trials: Sequence[Trial]) -> Trial:
    """The messages of several trials as if they were one's; the systems are those that all of them have."""
    systems = [system for system in TITLES if all(system in trial.runs for trial in trials)]
    deepest = max(len(trial.depths) for trial in trials) if "cascade" in systems else 0
    # A small FAQ may have fewer candidates than another: its deepest reading stands for deeper ones.
    depths = [[trial.depths[min(i, len(trial.depths) - 1)] for trial in trials] for i in range(deepest)]
    return Trial(
        {system: _joined([trial.runs[system] for trial in trials]) for system in systems},
        tuple(_joined(runs) for runs in depths),
    )


def _joined(runs: Sequence[Run]) -> Run:
    return Run(tuple(one for run in runs for one in run.judged), sum(run.seconds for run in runs))


def try_systems(
    looked: Sequence[Looked],
    index: FaqIndex,
    today: date,
    seconds: float,
    reader: Reader | None = None,
    reporter: Reporter | None = None,
) -> Trial:
    """Put messages to every system.

    Args:
        looked: the messages.
        index: what they are put to.
        today: entries that are not valid on this day are left out.
        seconds: what encoding the messages took.
        reader: the cross-encoder that the index was built with; None, or an index built without one, leaves the
            bi-encoder alone.
        reporter: told how reading goes.
    """
    alone = judge(looked, index, today)
    runs: dict[System, Run] = {"alone": Run(tuple(alone), seconds)}
    if reader is None or index.confirmer is None:
        return Trial(runs)
    everything = _confirming_all(index)
    inside, every = needed(looked, index, today), needed(looked, everything, today)
    reading = _Reading(every, reader, reporter or Reporter())
    depth = max((len(need.candidates) for need in every.values()), default=1)
    took = np.cumsum([reading.read(inside, rank) for rank in range(depth)])
    rest = {place: need for place, need in every.items() if place not in inside}
    whole = float(took[-1]) + sum(reading.read(rest, rank) for rank in range(depth))
    depths = tuple(
        Run(tuple(judge(looked, index, today, reading.logits(rank + 1))), seconds + float(took[rank]))
        for rank in range(depth)
    )
    logits = reading.logits(depth)
    ranked = tuple(by_logits(one, logits.get(place)) for place, one in enumerate(alone))
    runs["confirmer_alone"] = Run(ranked, seconds + whole)
    runs["cascade"] = depths[-1]
    runs["full_confirmation"] = Run(tuple(judge(looked, everything, today, logits)), seconds + whole)
    return Trial(runs, depths)


def _confirming_all(index: FaqIndex) -> FaqIndex:
    """The index as if confirmation might change any message's decision."""
    confirmer = index.confirmer and structs.replace(index.confirmer, confirm_from=0.0, confirm_to=1.0)
    return replace(index, manifest=structs.replace(index.manifest, confirmer=confirmer))


class _Reading:
    """Pairs read so far; each is read once.

    Args:
        needs: all there are, by the places of their messages.
        reader: reads them.
        reporter: told how it goes.
    """

    def __init__(self, needs: Mapping[int, NeedScores], reader: Reader, reporter: Reporter) -> None:
        total = sum(len(need.candidates) for need in needs.values())
        reporter.step(f"reading {total:,} pairs with the cross-encoder")
        self._reader, self._advance = reader, reporter.encoding(total)
        self._logits: dict[int, list[float]] = {place: [] for place in needs}

    def read(self, needs: Mapping[int, NeedScores], rank: int) -> float:
        """Read the candidates that stand at this rank, counted from 0, and give the seconds that took."""
        places = [place for place, need in needs.items() if rank < len(need.candidates)]
        if not places:
            return 0.0
        pairs = [(needs[place].message, needs[place].candidates[rank]) for place in places]
        started = perf_counter()
        logits = self._reader.score(pairs, progress=self._advance)
        seconds = perf_counter() - started
        for place, logit in zip(places, logits.tolist(), strict=True):
            self._logits[place].append(logit)
        return seconds

    def logits(self, depth: int) -> dict[int, Floats]:
        """Those of each message's first candidates, at most so many."""
        return {place: np.array(read[:depth], dtype=np.float32) for place, read in self._logits.items() if read}
