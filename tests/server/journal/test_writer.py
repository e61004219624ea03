"""Guards `server.journal.writer` with real threads over a store that fails when it is told to: its invariants."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from queue import SimpleQueue
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from server.errors import JournalError
from server.journal import health, writer
from server.journal.health import Health
from server.journal.store import Rows
from server.journal.writer import Writer
from server.telemetry import JournalMetrics, Metrics, values_of
from server.telemetry import Keeping as Fate
from server.telemetry import Kept as Kind
from tests.server.journal.records import NOW, asked, said

Outcome = Literal["ok", "fail", "break", "refuse"]
# Where something waits and nobody comes, that is known soon.
pytestmark = pytest.mark.timeout(60)


@dataclass
class Scripted:
    """A store whose writes end as the script says, and well when it is over.

    Attributes:
        script: outcomes to come, last one first.
        groups: refs of the rows that were written, by transaction.
        gate: what a write waits for, where there is one.
        old: rows that are there to be pruned.
    """

    script: list[Outcome] = field(default_factory=list)
    groups: list[list[str]] = field(default_factory=list)
    gate: threading.Semaphore | None = None
    writing: threading.Event = field(default_factory=threading.Event)
    old: int = 0
    closed: bool = False

    def open(self) -> None:
        """As `Store`."""

    def write(self, rows: Rows) -> frozenset[int]:
        """As `Store`."""
        self.writing.set()
        if self.gate is not None:
            self.gate.acquire()
        outcome = self.script.pop() if self.script else "ok"
        if outcome == "fail":
            raise JournalError("scripted", passing=True)
        if outcome == "break":
            raise ZeroDivisionError
        refused = frozenset(range(0, len(rows), 2)) if outcome == "refuse" else frozenset[int]()
        self.groups.append([row["ref"] for place, (_, row) in enumerate(rows) if place not in refused])
        return refused

    def probe(self) -> None:
        """As `Store`."""

    def prune(self, before: datetime, most: int) -> int:
        """As `Store`."""
        assert before < NOW
        pruned = min(most, self.old)
        self.old -= pruned
        return pruned

    def checkpoint(self) -> bool:
        """As `Store`."""
        return True

    def close(self) -> None:
        """As `Store`."""
        self.closed = True

    @property
    def stored(self) -> list[str]:
        """Refs of all rows, in order."""
        return [ref for group in self.groups for ref in group]


@dataclass
class Run:
    """A writer under way, and what it tells."""

    writer: Writer
    health: Health
    metrics: JournalMetrics
    ended: threading.Event
    told: "SimpleQueue[tuple[str, str | None]]" = field(default_factory=SimpleQueue)

    def ask(self, ref: str) -> bool:
        """Give an ask."""
        return self.writer.put(asked(ref))

    def say(self, ref: str) -> bool:
        """Give a feedback."""
        return self.writer.put(said(ref), lambda problem: self.told.put((ref, problem)))

    def degraded(self) -> tuple[str | None, int]:
        """Why it is, and what the metric shows."""
        return self.health.reason, int(self.metrics.degraded._value.get())

    def finish(self) -> None:
        """Stop it, and wait for its end."""
        self.writer.stop()
        assert self.ended.wait(30)

    def fates(self, kind: Kind) -> Counter[str]:
        """What became of records."""
        values: dict[Fate, Any] = {fate: self.metrics.records[kind][fate] for fate in values_of(Fate)}
        return Counter({str(fate): int(counter._value.get()) for fate, counter in values.items()})


def run(store: Scripted, *, room: int = 1000, keep: timedelta | None = None) -> Run:
    """Start a writer over a store."""
    metrics = Metrics(CollectorRegistry()).journal
    state = Health(metrics)
    made = Writer(store, policy="redacted", room=room, keep=keep, health=state, metrics=metrics, now=lambda: NOW)
    started = Run(made, state, metrics, threading.Event())
    opened = threading.Event()
    made.start(required=True, opened=lambda _: opened.set(), ended=started.ended.set)
    assert opened.wait(30)
    return started


def all_of(queue: "SimpleQueue[tuple[str, str | None]]") -> Iterator[tuple[str, str | None]]:
    """What a queue has."""
    while not queue.empty():
        yield queue.get_nowait()


OUTCOMES: st.SearchStrategy[list[Outcome]] = st.lists(st.sampled_from(values_of(Literal[Outcome])), max_size=6)


@given(st.lists(st.sampled_from(["ask", "feedback"]), max_size=40), OUTCOMES, st.integers(1, 8), st.integers(1, 5))
def test_everything_ends_once(kinds: Sequence[Kind], script: list[Outcome], room: int, group: int) -> None:
    """Whatever fails: what is accepted ends exactly once, in order, and no more than the room waits."""
    store = Scripted(script)
    with pytest.MonkeyPatch.context() as patch, capture_logs():
        patch.setattr(writer, "GROUP", group)
        patch.setattr(writer, "LINGER_SECONDS", 0.0)
        patch.setattr(writer, "FIRST_RETRY_SECONDS", 0.0001)
        patch.setattr(writer, "LAST_RETRY_SECONDS", 0.0001)
        started = run(store, room=room)
        accepted: dict[str, list[str]] = {"ask": [], "feedback": []}
        for number, kind in enumerate(kinds):
            ref = f"{kind} {number}"
            taken = started.ask(ref) if kind == "ask" else started.say(ref)
            assert started.writer.waiting(kind) <= room
            if taken:
                accepted[kind].append(ref)
        started.finish()
    assert store.closed
    assert started.writer.waiting() == 0
    told = dict(all_of(started.told))
    assert sorted(told) == sorted(accepted["feedback"])
    assert {ref for ref, problem in told.items() if problem is None} == {r for r in store.stored if r in told}
    for kind in ("ask", "feedback"):
        fates = started.fates(kind)
        kept = [ref for ref in store.stored if ref.startswith(kind)]
        assert kept == [ref for ref in accepted[kind] if ref in set(kept)], "out of order, or twice"
        assert fates["stored"] == len(kept)
        assert sum(fates.values()) == sum(given == kind for given in kinds)
        assert fates["queue_full"] == sum(given == kind for given in kinds) - len(accepted[kind])
    assert started.fates("ask")["failed"] == 0


def test_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while a group is written leaves as one group, and none is larger than allowed."""
    monkeypatch.setattr(writer, "GROUP", 10)
    store = Scripted(gate=threading.Semaphore(0))
    started = run(store)
    assert started.say("first")
    assert store.writing.wait(30)
    assert all(started.ask(f"{n}") for n in range(25))
    assert started.say("last")
    assert store.gate is not None
    store.gate.release(4)
    started.finish()
    assert [len(group) for group in store.groups] == [1, 10, 10, 6]
    assert store.stored == ["first", *map(str, range(25)), "last"]


def test_a_feedback_takes_asks_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks wait for company; a feedback waits for nobody, and what is there goes with it."""
    monkeypatch.setattr(writer, "LINGER_SECONDS", 1e6)
    store = Scripted()
    started = run(store)
    assert started.ask("a")
    assert started.ask("b")
    assert started.say("b")
    assert started.told.get(timeout=30) == ("b", None)
    assert store.groups == [["a", "b", "b"]]
    started.finish()


def test_a_full_group_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks that fill a group wait no longer."""
    monkeypatch.setattr(writer, "LINGER_SECONDS", 1e6)
    monkeypatch.setattr(writer, "GROUP", 3)
    store = Scripted()
    started = run(store)
    assert all(started.ask(ref) for ref in "abc")
    assert store.writing.wait(30)
    started.finish()
    assert store.groups == [["a", "b", "c"]]


def test_no_room() -> None:
    """What finds no room is turned away, counted and complained about; when there is room again all is well."""
    store = Scripted(gate=threading.Semaphore(0))
    started = run(store, room=4)
    assert started.say("now")
    assert store.writing.wait(30)
    with capture_logs() as events:
        assert [started.ask(f"{n}") for n in range(6)] == [True] * 4 + [False] * 2
    assert [event["event"] for event in events] == ["the journal is degraded; messages are answered all the same"]
    assert started.degraded() == ("4 records (ask) wait to be written", 1)
    assert started.say("later"), "asks take no room from feedback"
    assert store.gate is not None
    store.gate.release(9)
    started.finish()
    assert started.fates("ask") == Counter(stored=4, queue_full=2)
    assert started.degraded() == (None, 0)


def test_a_failure_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feedback fails at once, with the reason; asks of the same group are written when it goes again."""
    monkeypatch.setattr(writer, "LINGER_SECONDS", 1e6)
    monkeypatch.setattr(writer, "FIRST_RETRY_SECONDS", 1e6)
    store = Scripted(["fail"])
    started = run(store)
    assert started.ask("a")
    assert started.say("a")
    assert started.told.get(timeout=30) == ("a", "scripted")
    assert started.degraded() == ("scripted", 1)
    assert started.say("b"), "a feedback is tried whatever was before"
    assert started.told.get(timeout=30) == ("b", None)
    started.finish()
    assert store.groups == [["a", "b"]]
    assert started.degraded() == (None, 0)


def test_a_bug_is_survived() -> None:
    """What nobody thought of is logged with its traceback, and the thread goes on."""
    store = Scripted(["break"])
    started = run(store)
    with capture_logs() as events:
        assert started.say("a")
        assert started.told.get(timeout=30) == ("a", "the journal failed (ZeroDivisionError)")
    assert ("the journal failed", True) in [(event["event"], event.get("exc_info")) for event in events]
    assert started.say("b")
    assert started.told.get(timeout=30) == ("b", None)
    started.finish()


def test_a_record_that_is_none() -> None:
    """A record of which no row can be made is refused, and no other with it."""
    store = Scripted(gate=threading.Semaphore(0))
    started = run(store)
    assert started.say("first")
    assert store.writing.wait(30)
    assert started.writer.put(asked("no text", text=5))
    assert started.writer.put(said("no text", comment=5), lambda problem: started.told.put(("no text", problem)))
    assert started.say("last")
    assert store.gate is not None
    store.gate.release(9)
    started.finish()
    assert store.stored == ["first", "last"]
    assert dict(all_of(started.told))["no text"] == "the database does not take it"
    assert (started.fates("ask")["refused"], started.fates("feedback")["refused"]) == (1, 1)


def test_what_cannot_be_written_at_the_end_is_given_up() -> None:
    """Closing tries once; what fails then is counted, and nobody waits for it."""
    store = Scripted(["fail"] * 9)
    started = run(store)
    assert started.ask("a")
    started.finish()
    assert started.fates("ask") == Counter(closing=1)


def test_old_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old records are deleted at the start, some at a time, with others written between; nothing where all are kept."""
    monkeypatch.setattr(writer, "PRUNE_ROWS", 10)
    store = Scripted(old=95)
    started = run(store, keep=timedelta(days=1))
    while store.old:
        assert started.say("a")
        assert started.told.get(timeout=30) == ("a", None)
    started.finish()
    kept = Scripted(old=95)
    run(kept).finish()
    assert kept.old == 95


def test_old_records_that_cannot_be_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails to delete old records fails nobody's feedback."""
    store = Scripted()
    pruned = threading.Event()

    def prune(*_: object) -> int:
        pruned.set()
        raise JournalError("scripted", passing=True)

    monkeypatch.setattr(store, "prune", prune)
    started = run(store, keep=timedelta(days=1))
    assert pruned.wait(30)
    assert started.say("a")
    assert started.told.get(timeout=30) == ("a", None)
    started.finish()
    assert started.degraded() == (None, 0)


def test_complaints_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trouble that lasts is logged when it begins and now and then, however many records it costs."""
    now = [0.0]
    state = Health(Metrics(CollectorRegistry()).journal, clock=lambda: now[0])
    with capture_logs() as events:
        for now[0] in range(int(3 * health.COMPLAINT_SECONDS)):
            state.worsen("no room")
        state.mend()
        state.mend()
    assert [event["log_level"] for event in events] == ["error"] * 3 + ["warning"]
