"""Metrics for Prometheus: what is counted and timed, and under which names.

`docs/metrics.md` lists them, and a test holds it complete.

They are made so that several processes can be read as one: where the environment names a folder in
`PROMETHEUS_MULTIPROC_DIR`, the Prometheus client keeps every value in a file there, and a page adds them up. So there
are no Info metrics, no collectors of our own, and no functions as values. Labels cannot be removed either: what is no
longer in use goes to 0. Every gauge is the sum over the processes that live.

Recording is safe from any thread, and cheap: labels are resolved when `Metrics` is made, not for each message.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.multiprocess import MultiProcessCollector

from export.bundle import Kind
from intents.cascade import Confirmation
from intents.decide import DecisionKind
from server.admission import RefusalCause
from server.errors import Overloaded, RateLimited, RequestError, SettingsError, ShuttingDown, TooManyInFlight
from server.handshakes import HandshakeCause

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# The folder of several processes' values, or None for one process alone. The Prometheus client looks once, when it is
# imported; so does this.
SHARED_FOLDER = os.environ.get(VARIABLE)

ReplyType = Literal["answer", "error", "cancelled"]
Stage = Literal["tokenize", "queue", "encode", "search", "confirm_queue", "confirm", "decide"]
Refusal = (
    RefusalCause | HandshakeCause | Literal["queue_full", "budget", "in_flight", "message_rate", "origin", "token"]
)
Closing = Literal["expired", "idle", "no_pong", "too_fast", "too_slow", "unauthenticated"]
Opinion = Literal["helpful", "unhelpful"]
DropCause = Literal["expired", "cancelled", "closing"]
Degradation = Literal["gpu_unused", "unconfirmed", "journal", "stale_index", "tracing"]
ReloadResult = Literal["swapped", "unchanged", "refused"]
WorkerState = Literal["running", "restarting", "given_up"]
Kept = Literal["ask", "feedback"]
Sending = Literal["sent", "queue_full", "failed", "closing"]
Keeping = Literal["stored", "queue_full", "failed", "refused", "closing"]

# Upper bounds of the histograms' buckets. Seconds of messages are dense where budgets are; stages take microseconds on
# a GPU, milliseconds on a CPU, and as long as the budget in a queue.
MESSAGE_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0),
)
STAGE_SECONDS = (
    *(0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005),
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
LATENESS_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
PADDING = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75)
COST_ERROR = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
CANDIDATES = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)

# Else each counter and histogram has a gauge beside it that says when it was made; and that only in one process.
disable_created_metrics()

M = TypeVar("M", Counter, Gauge, Histogram)


class InUse:
    """Shows which labels are in use: they are 1, and those that were in use before are 0.

    Args:
        gauge: what shows it.
        labels: the first labels, all but those given to `switch`.
    """

    def __init__(self, gauge: Gauge, *labels: str) -> None:
        self._gauge = gauge
        self._labels = labels
        self._current: Gauge | None = None
        self._lock = Lock()

    def switch(self, *labels: str) -> None:
        """Put labels into the place of those in use."""
        with self._lock:
            if self._current is not None:
                self._current.set(0)
            self._current = self._gauge.labels(*self._labels, *labels)
            self._current.set(1)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """What one model's queue and batches tell.

    Attributes:
        in_use: (provider, variant) that the model runs on.
        queue_length: requests that wait.
        queue_seconds: how long a request waited before its batch left.
        batch_rows: requests of a batch.
        batch_tokens: tokens of a batch, padding included.
        padding_ratio: the share of padding in them.
        batch_seconds: how long a batch ran.
        cost_error_ratio: by how much the cost model was wrong about that, as a share of it.
        dropped: requests that never reached the device, by what ended them.
        shared: requests that shared the computation of an equal one in flight.
    """

    in_use: InUse
    queue_length: Gauge
    queue_seconds: Histogram
    batch_rows: Histogram
    batch_tokens: Histogram
    padding_ratio: Histogram
    batch_seconds: Histogram
    cost_error_ratio: Histogram
    dropped: dict[DropCause, Counter]
    shared: Counter

    def ran(self, *, rows: int, tokens: int, padded: int, seconds: float, predicted: float) -> None:
        """Record a batch that has run.

        Args:
            rows: its requests.
            tokens: their tokens.
            padded: the tokens that the device read, padding included; at least one.
            seconds: how long it ran.
            predicted: how long the cost model had said it would, in seconds.
        """
        self.batch_rows.observe(rows)
        self.batch_tokens.observe(padded)
        self.padding_ratio.observe(1 - tokens / padded)
        self.batch_seconds.observe(seconds)
        if seconds > 0:  # less than the clock can tell says nothing about the prediction
            self.cost_error_ratio.observe(abs(predicted - seconds) / seconds)


@dataclass(frozen=True, slots=True)
class JournalMetrics:
    """What becomes of what the journal is given.

    Attributes:
        records: records, by what they are and what became of them.
        queue_length: records that wait to be written.
        commit_seconds: how long a group of records took to be written, those included that were not.
        degraded: 1 while records are lost, else 0.
    """

    records: dict[Kept, dict[Keeping, Counter]]
    queue_length: Gauge
    commit_seconds: Histogram
    degraded: Gauge


@dataclass(frozen=True, slots=True)
class TraceMetrics:
    """What becomes of traces.

    Attributes:
        traces: those that were taken, by what became of them.
        degraded: 1 while they are lost, else 0.
    """

    traces: dict[Sending, Counter]
    degraded: Gauge


class Metrics:
    """All metrics of a server, on a registry of its own.

    Args:
        registry: where they are registered; it may have no other `Metrics`.

    Attributes:
        registry: the same.
        decisions: answered messages, by decision.
        confirmations: answered messages, by what the cross-encoder did.
        errors: errors sent, by wire code.
        refusals: messages and handshakes turned away, by the reason.
        closings: open connections that were closed because of what their client did or failed to do, by the reason.
        suggests: texts being typed that suggestions were sent for.
        feedback: feedback that was recorded, by what it says of the answer.
        stages: seconds of a message, by stage.
        decisions_changed: answered messages that the bi-encoder alone would have decided otherwise.
        candidates_confirmed: how many candidates the cross-encoder read; of messages of which it read any.
        models: what each model's queue and batches tell.
        cache_hits: messages that the answer cache answered.
        cache_misses: messages that it was asked for in vain.
        cache_entries: answers that it holds.
        connections: open connections.
        index_in_use: (version,) of the index that answers.
        reloads: times that the index was to be loaded anew, by what came of it.
        degradations: 1 where something works worse than it was asked to, else 0; by what it is.
        journal: what becomes of records of asks and feedback.
        tracing: what becomes of traces.

    Raises:
        SettingsError: `PROMETHEUS_MULTIPROC_DIR` is set, and is not a folder that can be written.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        if SHARED_FOLDER is not None:
            _check_folder(SHARED_FOLDER)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"faqwire_{name}", meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"faqwire_{name}", meaning, labels, registry=registry, multiprocess_mode="livesum")

        def histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"faqwire_{name}", meaning, labels, registry=registry, buckets=buckets)

        self.decisions: dict[DecisionKind, Counter] = _children(
            counter("messages_total", "Answered messages", "decision"), values_of(DecisionKind)
        )
        self.confirmations: dict[Confirmation, Counter] = _children(
            counter("confirmations_total", "Answered messages by what the cross-encoder did", "status"),
            values_of(Confirmation),
        )
        self.errors: dict[str, Counter] = _children(
            counter("errors_total", "Errors sent", "code"), tuple(e.code for e in RequestError.__subclasses__())
        )
        self.refusals: dict[Refusal, Counter] = _children(
            counter("refusals_total", "Messages and handshakes turned away", "reason"), values_of(Refusal)
        )
        self.closings: dict[Closing, Counter] = _children(
            counter("closings_total", "Connections that the server closed because of what their client did", "reason"),
            values_of(Closing),
        )
        self.suggests = counter("suggests_total", "Texts being typed that suggestions were sent for")
        self.feedback: dict[Opinion, Counter] = _children(
            counter("feedback_total", "Feedback that was recorded", "opinion"), values_of(Opinion)
        )
        self._message_seconds: dict[ReplyType, Histogram] = _children(
            histogram("message_seconds", "From a frame's arrival until its reply is written", MESSAGE_SECONDS, "type"),
            values_of(ReplyType),
        )
        self._deadline_misses = counter("deadline_misses_total", "Replies written after their deadline")
        self._lateness = histogram("lateness_seconds", "How late those were", LATENESS_SECONDS)
        self.stages: dict[Stage, Histogram] = _children(
            histogram("stage_seconds", "Where a message's time went", STAGE_SECONDS, "stage"), values_of(Stage)
        )
        self.decisions_changed = counter("decisions_changed_total", "Answered messages that were decided otherwise")
        self.candidates_confirmed = histogram(
            "candidates_confirmed", "Candidates that the cross-encoder read for a message", CANDIDATES
        )

        in_use = gauge("model_in_use", "Processes that run a model this way", "model", "provider", "variant")
        queue_length = gauge("queue_length", "Requests that wait for a model", "model")
        queue_seconds = histogram("queue_seconds", "How long a request waited for a model", STAGE_SECONDS, "model")
        rows = histogram("batch_rows", "Requests of a batch", ROWS, "model")
        tokens = histogram("batch_tokens", "Tokens of a batch, padding included", TOKENS, "model")
        padding = histogram("padding_ratio", "Share of padding in a batch's tokens", PADDING, "model")
        seconds = histogram("batch_seconds", "How long a batch ran", STAGE_SECONDS, "model")
        cost_error = histogram("cost_error_ratio", "How wrong the cost model was about a batch", COST_ERROR, "model")
        dropped = counter("dropped_total", "Requests that never reached the device", "model", "cause")
        shared = counter("shared_total", "Requests that shared the computation of an equal one", "model")
        self.models: dict[Kind, ModelMetrics] = {
            model: ModelMetrics(
                in_use=InUse(in_use, model),
                queue_length=queue_length.labels(model),
                queue_seconds=queue_seconds.labels(model),
                batch_rows=rows.labels(model),
                batch_tokens=tokens.labels(model),
                padding_ratio=padding.labels(model),
                batch_seconds=seconds.labels(model),
                cost_error_ratio=cost_error.labels(model),
                dropped=_children(dropped, values_of(DropCause), model),
                shared=shared.labels(model),
            )
            for model in values_of(Kind)
        }

        cache = counter("cache_requests_total", "Messages that the answer cache was asked for", "result")
        self.cache_hits, self.cache_misses = cache.labels("hit"), cache.labels("miss")
        self.cache_entries = gauge("cache_entries", "Answers in the answer cache")
        self.connections = gauge("connections", "Open connections")
        self.index_in_use = InUse(gauge("index_in_use", "Processes that answer from this version", "version"))
        self.reloads: dict[ReloadResult, Counter] = _children(
            counter("reloads_total", "Times that the index was to be loaded anew", "result"), values_of(ReloadResult)
        )
        self.degradations: dict[Degradation, Gauge] = _children(
            gauge("degraded", "Processes that work worse than they were asked to", "reason"), values_of(Degradation)
        )
        records = counter("journal_records_total", "Records that the journal was given", "kind", "fate")
        self.journal = JournalMetrics(
            records={kind: _children(records, values_of(Keeping), kind) for kind in values_of(Kept)},
            queue_length=gauge("journal_queue_length", "Records that wait to be written"),
            commit_seconds=histogram("journal_commit_seconds", "How long a group of records took", STAGE_SECONDS),
            degraded=self.degradations["journal"],
        )
        traces = counter("traces_total", "Traces of messages", "outcome")
        self.tracing = TraceMetrics(_children(traces, values_of(Sending)), self.degradations["tracing"])

    def replied(self, kind: ReplyType, seconds: float, late: float) -> None:
        """Record that a message's reply has been written.

        Args:
            kind: the reply's type.
            seconds: since its frame arrived.
            late: seconds since its deadline, negative before it.
        """
        self._message_seconds[kind].observe(seconds)
        if late > 0:
            self._deadline_misses.inc()
            self._lateness.observe(late)

    def refused(self, error: RequestError) -> None:
        """Record that a message was turned away, where that was for lack of room or time, or for coming too fast."""
        match error:
            case Overloaded(queue_full=True):
                self.refusals["queue_full"].inc()
            case Overloaded():
                self.refusals["budget"].inc()
            case TooManyInFlight():
                self.refusals["in_flight"].inc()
            case RateLimited():
                self.refusals["message_rate"].inc()
            case ShuttingDown():
                self.refusals["stopping"].inc()

    def shown(self) -> CollectorRegistry:
        """What a page of this process shows: its own, or what all processes have in the folder that they share."""
        return self.registry if SHARED_FOLDER is None else _of_all_processes(SHARED_FOLDER)


class SupervisorMetrics:
    """What the supervisor of several workers tells, and what they tell themselves.

    Args:
        folder: where the workers keep their values.

    Attributes:
        registry: shows all of it.
        restarts: how often a worker was started again.
    """

    def __init__(self, folder: Path) -> None:
        self.registry = _of_all_processes(str(folder))
        self.restarts = Counter("faqwire_worker_restarts_total", "Workers started again", registry=self.registry)
        self._workers: dict[WorkerState, Gauge] = _children(
            Gauge("faqwire_workers", "Workers, by how they are", ("state",), registry=self.registry),
            values_of(WorkerState),
        )

    def show(self, states: Mapping[WorkerState, int]) -> None:
        """Record how many workers are how."""
        for state, gauge in self._workers.items():
            gauge.set(states.get(state, 0))


def _of_all_processes(folder: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)
    return registry


def values_of(literal: Any) -> tuple[Any, ...]:
    """The values of a Literal, or of a union of Literals."""
    return tuple(value for part in get_args(literal) for value in get_args(part) or (part,))


def _children(metric: M, values: tuple[Any, ...], *before: str) -> dict[Any, M]:
    """What a metric's last label may be, each with its series; those in front of it are given."""
    return {value: metric.labels(*before, value) for value in values}


def _check_folder(name: str) -> None:
    if not name or not os.access(name, os.W_OK | os.X_OK) or not Path(name).is_dir():
        raise SettingsError(
            f"environment: {VARIABLE} is {name!r}, and not a folder that can be written; "
            "make it, empty, or unset the variable"
        )
