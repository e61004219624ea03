"""Answers to messages that come again: bounded, and never older than what they were computed from."""

from datetime import date

from cachetools import LRUCache

from intents.cascade import Outcome
from intents.normalise import normalise
from server.telemetry import Metrics


class AnswerCache:
    """Keeps outcomes by normalised text, index version, day, and whether the cross-encoder was to be asked.

    Whoever puts one in sees to it that it is not degraded: computed with all that the settings ask for. The day is
    part of the key, so an outcome ends with its entry's validity.

    Args:
        size: the most outcomes; the least recently used ones give way.
        metrics: told of hits and misses.
    """

    def __init__(self, size: int, metrics: Metrics) -> None:
        self._outcomes: LRUCache[tuple[str, str, date, bool], Outcome] = LRUCache(size)
        self._metrics = metrics
        metrics.cache_entries.set(0)

    def get(self, text: str, version: str, day: date, *, confirm: bool) -> Outcome | None:
        """What this message came to, or None."""
        outcome = self._outcomes.get((normalise(text), version, day, confirm))
        (self._metrics.cache_misses if outcome is None else self._metrics.cache_hits).inc()
        return outcome

    def put(self, text: str, version: str, day: date, outcome: Outcome, *, confirm: bool) -> None:
        """Keep an outcome."""
        self._outcomes[normalise(text), version, day, confirm] = outcome
        self._metrics.cache_entries.set(len(self._outcomes))
