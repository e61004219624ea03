"""Which of the computations that wait make up the next batch: pure."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from server.budget import CostModel
from server.work import Work

T = TypeVar("T")
R = TypeVar("R")

# Who has less slack than this many batches is in a hurry.
HURRY = 1.5
# A batch whose rows cost at most this much more each than in the best one is taken, if it is smaller: it ends earlier.
GOOD_ENOUGH = 1.05


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a micro-batcher keeps within.

    Attributes:
        queue: how many computations may wait.
        rows: how many a batch may hold.
        tokens: how many tokens a batch may hold, padding included; a single longer one still goes, alone.
        seconds: how long a batch may be expected to take, so that what comes next does not wait long; likewise.
    """

    queue: int
    rows: int
    tokens: int
    seconds: float


def choose(waiting: Sequence[Work[T, R]], cost: CostModel, now: float, bounds: Bounds) -> list[Work[T, R]]:
    """The next batch: led by the earliest deadline, filled with who is in a hurry, then with those nearest in length.

    Args:
        waiting: what there is to choose from, at least one.
        cost: what batches take.
        now: the time, on the clock of the deadlines.
        bounds: of the batch. Where the leader has less time than a batch may take, it takes no more than that.
    """
    if len(waiting) == 1:
        return list(waiting)
    leader = min(waiting, key=lambda work: work.deadline)
    hurry = now + HURRY * bounds.seconds
    seconds = min(bounds.seconds, leader.deadline - now)

    def rank(work: Work[T, R]) -> tuple[bool, float, float]:
        if work.deadline < hurry:
            return False, work.deadline, 0.0
        return True, abs(work.length - leader.length), work.deadline

    batch, longest = [leader], leader.length
    costs = [cost.mean(1, longest)]
    hurried = 1
    for work in heapq.nsmallest(bounds.rows, waiting, key=rank):
        if work is leader:
            continue
        rows, tokens = len(batch) + 1, max(longest, work.length)
        if rows > bounds.rows:
            break
        expected = cost.mean(rows, tokens)
        if rows * tokens > bounds.tokens or expected > seconds:
            continue  # a shorter one may still fit
        batch.append(work)
        costs.append(expected / rows)
        longest = tokens
        if work.deadline < hurry:
            hurried = rows
    # No more than pays: from some size on rows cost the same each, and those that are less alike cost more.
    enough = min(costs) * GOOD_ENOUGH
    return batch[: max(hurried, next(rows for rows, each in enumerate(costs, 1) if each <= enough))]
