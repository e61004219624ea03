"""Guards `server.cache`: which messages are the same, how many are kept, and what is counted."""

from datetime import date

import pytest
from prometheus_client import CollectorRegistry

from intents.cascade import Outcome
from intents.decide import Decision, Option
from server.cache import AnswerCache
from server.telemetry import Metrics
from tests.server.fakes import sample

DAY = date(2026, 11, 23)


@pytest.fixture
def metrics() -> Metrics:
    """Where caches tell what happens."""
    return Metrics(CollectorRegistry())


def outcome(entry: int) -> Outcome:
    """An outcome that is known by its entry."""
    decision = Decision("answer", entry, 0.9, (Option(entry, 0.9),))
    return Outcome(decision, (), "disabled", 0, decision)


def put(cache: AnswerCache, text: str, entry: int) -> None:
    """Keep an outcome of the first version and day."""
    cache.put(text, "v1", DAY, outcome(entry), confirm=True)


def get(cache: AnswerCache, text: str, *, version: str = "v1", day: date = DAY, confirm: bool = True) -> int | None:
    """The entry that a message came to."""
    found = cache.get(text, version, day, confirm=confirm)
    return None if found is None else found.decision.entry


@pytest.mark.parametrize("text", ["Where is my order?", "  where IS   my order", "WHERE IS MY ORDER!"])
def test_the_same_text_is_known(metrics: Metrics, text: str) -> None:
    """Case, blanks and the mark at the end make no other message."""
    cache = AnswerCache(10, metrics)
    put(cache, "where is my order", 1)
    assert get(cache, text) == 1
    assert get(cache, "where is my other order") is None


def test_an_outcome_is_of_its_version_day_and_confirmation(metrics: Metrics) -> None:
    """What another index says, what holds on another day, and what was not confirmed is not known yet."""
    cache = AnswerCache(10, metrics)
    put(cache, "a", 1)
    assert get(cache, "a", version="v2") is None
    assert get(cache, "a", day=date(2026, 11, 24)) is None
    assert get(cache, "a", confirm=False) is None
    assert get(cache, "a") == 1


def test_the_latest_outcome_is_kept(metrics: Metrics) -> None:
    """What is put in twice is one message."""
    cache = AnswerCache(10, metrics)
    put(cache, "a", 1)
    put(cache, "A", 2)
    assert get(cache, "a") == 2
    assert sample(metrics, "cache_entries") == 1


def test_the_least_recently_used_gives_way(metrics: Metrics) -> None:
    """A full cache lets go of what nobody has asked for the longest."""
    cache = AnswerCache(2, metrics)
    put(cache, "a", 1)
    put(cache, "b", 2)
    assert get(cache, "a") == 1
    put(cache, "c", 3)
    assert [get(cache, text) for text in "abc"] == [1, None, 3]
    assert sample(metrics, "cache_entries") == 2


def test_hits_and_misses_are_counted(metrics: Metrics) -> None:
    """The hit rate can be told from the metrics, and how full the cache is."""
    cache = AnswerCache(10, metrics)
    get(cache, "a")
    put(cache, "a", 1)
    for text in ("a", "a", "b"):
        get(cache, text)
    assert sample(metrics, "cache_requests_total", result="hit") == 2
    assert sample(metrics, "cache_requests_total", result="miss") == 2
    assert sample(metrics, "cache_entries") == 1
