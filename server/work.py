"""What a micro-batcher handles: computations, the requests that wait for them, and what these came to."""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
R = TypeVar("R")


class Work(Generic[T, R]):
    """One computation: an item, and the requests that wait for it.

    Attributes:
        arrived: when it began to wait.
        deadline: the earliest of its requests'.
        left, ended: when its batch left for the device and when that ended, once it has.
    """

    __slots__ = ("arrived", "deadline", "ended", "item", "key", "left", "length", "requests", "result")

    def __init__(self, item: T, key: Hashable, length: int, arrived: float) -> None:
        self.item = item
        self.key = key
        self.length = length
        self.arrived = arrived
        self.deadline = math.inf
        self.requests: list[Request[T, R]] = []
        self.left = 0.0
        self.ended = 0.0
        self.result: R


class Request(Generic[T, R]):
    """Somebody who waits for one or several computations.

    Attributes:
        works: what is waited for, one for each item; equal items share theirs.
        arrived, deadline: on the event loop's clock.
        future: ends when all of them have, or one has failed, or the deadline has passed.
        missing: how many have not ended.
        timer: ends the request at its deadline.
    """

    __slots__ = ("arrived", "deadline", "future", "missing", "timer", "works")

    def __init__(
        self, works: list[Work[T, R]], arrived: float, deadline: float, future: "asyncio.Future[None]"
    ) -> None:
        self.works = works
        self.arrived = arrived
        self.deadline = deadline
        self.future = future
        self.missing = len(set(works))
        self.timer: asyncio.TimerHandle

    @property
    def left(self) -> float:
        """When the last of what it waits for left for the device; 0 where some has not."""
        return max(work.left for work in self.works) if all(work.left for work in self.works) else 0.0

    @property
    def ended(self) -> float:
        """When the device had done all of it."""
        return max(work.ended for work in self.works)


@dataclass(slots=True)
class Done(Generic[R]):
    """What a request came to.

    Attributes:
        results: one for each of its items.
        queued: seconds until the last of them left for the device.
        ran: seconds from then until all had been run.
    """

    results: list[R]
    queued: float
    ran: float
