"""What the Grafana dashboard shows: rows of panels, each with its queries; `dashboard` makes a file of them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """A graph.

    Attributes:
        title: what it shows.
        unit: Grafana's word for what its values are in.
        queries: PromQL without the choice of instances, and what its series are called.
        stacked: whether its series add up to something.
        note: what to know when it looks bad.
    """

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    stacked: bool = False
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: Sequence[Panel]


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def rate(metric: str, *by: str) -> str:
    """How many a second."""
    return f"sum{_by(by)} (rate({metric}[$__rate_interval]))"


def total(metric: str, *by: str) -> str:
    """How many there are now."""
    return f"sum{_by(by)} ({metric})"


def mean(histogram: str, *by: str, labels: str = "") -> str:
    """The mean of what a histogram was told."""
    return f"{rate(f'{histogram}_sum{labels}', *by)} / {rate(f'{histogram}_count{labels}', *by)}"


def quantile(share: float, histogram: str, *by: str, labels: str = "") -> str:
    """A quantile of what a histogram was told."""
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket{labels}', 'le', *by)})"


def quantiles(histogram: str, *shares: float, labels: str = "") -> list[tuple[str, str]]:
    """Several of them."""
    return [(quantile(share, histogram, labels=labels), f"{share:.4g}") for share in shares]


ANSWERS = '{type="answer"}'
EACH_ANSWER = rate(f"faqwire_message_seconds_count{ANSWERS}")
HITS = 'faqwire_cache_requests_total{result="hit"}'
TRAFFIC = Row(
    "Traffic",
    [
        Panel(
            "Messages that ended", "reqps", [(rate("faqwire_message_seconds_count", "type"), "{{type}}")], stacked=True
        ),
        Panel("Open connections", "short", [(total("faqwire_connections"), "connections")]),
        Panel(
            "Works worse than it should",
            "short",
            [("max by (reason) (faqwire_degraded)", "{{reason}}")],
            note="1 means that something is wrong; the log says what.",
        ),
        Panel(
            "Suggestions and feedback",
            "reqps",
            [
                (rate("faqwire_suggests_total"), "suggestions"),
                (rate("faqwire_feedback_total", "opinion"), "{{opinion}}"),
            ],
        ),
        Panel(
            "Versions of the index that answer",
            "short",
            [(f"{total('faqwire_index_in_use', 'version')} > 0", "{{version}}")],
        ),
        Panel(
            "What the models run on",
            "short",
            [
                (
                    f"{total('faqwire_model_in_use', 'model', 'provider', 'variant')} > 0",
                    "{{model}} {{variant}} {{provider}}",
                )
            ],
        ),
    ],
)
LATENCY = Row(
    "Latency",
    [
        Panel(
            "Answers, by quantile",
            "s",
            quantiles("faqwire_message_seconds", 0.5, 0.95, 0.99, 0.999, labels=ANSWERS),
            note="From the arrival of a message until its reply is written.",
        ),
        Panel(
            "Share of replies after their deadline",
            "percentunit",
            [(f"{rate('faqwire_deadline_misses_total')} / {rate('faqwire_message_seconds_count')}", "late")],
        ),
        Panel("How late those are", "s", quantiles("faqwire_lateness_seconds", 0.5, 0.99)),
    ],
)
STAGES = Row(
    "Stages",
    [
        Panel("Median, by stage", "s", [(quantile(0.5, "faqwire_stage_seconds", "stage"), "{{stage}}")]),
        Panel("99th percentile, by stage", "s", [(quantile(0.99, "faqwire_stage_seconds", "stage"), "{{stage}}")]),
        Panel(
            "Mean time of an answer, by stage",
            "s",
            [(f"{rate('faqwire_stage_seconds_sum', 'stage')} / on () group_left () {EACH_ANSWER}", "{{stage}}")],
            stacked=True,
        ),
    ],
)
DECISIONS = Row(
    "Decisions and confirmations",
    [
        Panel("Decisions", "reqps", [(rate("faqwire_messages_total", "decision"), "{{decision}}")], stacked=True),
        Panel(
            "Confirmations",
            "reqps",
            [(rate("faqwire_confirmations_total", "status"), "{{status}}")],
            stacked=True,
            note="skipped_budget and skipped_load: answers without the cross-encoder, for lack of time.",
        ),
        Panel(
            "What confirming changes",
            "percentunit",
            [
                (
                    f"{rate('faqwire_decisions_changed_total')} / {rate('faqwire_candidates_confirmed_count')}",
                    "confirmed messages decided otherwise",
                )
            ],
        ),
        Panel("Candidates read for a message", "short", [(mean("faqwire_candidates_confirmed"), "mean")]),
    ],
)
TROUBLE = Row(
    "Refusals, errors and closings",
    [
        Panel("Refusals", "reqps", [(rate("faqwire_refusals_total", "reason"), "{{reason}}")], stacked=True),
        Panel("Errors", "reqps", [(rate("faqwire_errors_total", "code"), "{{code}}")], stacked=True),
        Panel("Closings", "reqps", [(rate("faqwire_closings_total", "reason"), "{{reason}}")], stacked=True),
    ],
)
BATCHES = Row(
    "Batches and queues",
    [
        Panel("Waiting for the model", "short", [(total("faqwire_queue_length", "model"), "{{model}}")]),
        Panel("Wait, 99th percentile", "s", [(quantile(0.99, "faqwire_queue_seconds", "model"), "{{model}}")]),
        Panel("Requests in a batch", "short", [(mean("faqwire_batch_rows", "model"), "{{model}}")]),
        Panel("Tokens in a batch", "short", [(mean("faqwire_batch_tokens", "model"), "{{model}}")]),
        Panel("Share of padding", "percentunit", [(mean("faqwire_padding_ratio", "model"), "{{model}}")]),
        Panel(
            "Duration of a batch, 99th percentile",
            "s",
            [(quantile(0.99, "faqwire_batch_seconds", "model"), "{{model}}")],
        ),
        Panel(
            "How wrong the predicted duration is",
            "percentunit",
            [(quantile(0.5, "faqwire_cost_error_ratio", "model"), "{{model}}, median")],
        ),
        Panel(
            "Dropped before the model",
            "reqps",
            [(rate("faqwire_dropped_total", "model", "cause"), "{{model}} {{cause}}")],
        ),
        Panel("Shared with an equal one", "reqps", [(rate("faqwire_shared_total", "model"), "{{model}}")]),
    ],
)
CACHE = Row(
    "Cache",
    [
        Panel(
            "Hit rate",
            "percentunit",
            [(f"{rate(HITS)} / {rate('faqwire_cache_requests_total')}", "hits")],
        ),
        Panel(
            "Messages looked up",
            "reqps",
            [(rate("faqwire_cache_requests_total", "result"), "{{result}}")],
            stacked=True,
        ),
        Panel("Answers held", "short", [(total("faqwire_cache_entries"), "answers")]),
    ],
)
RECORDS = Row(
    "Journal and traces",
    [
        Panel(
            "Records",
            "reqps",
            [(rate("faqwire_journal_records_total", "kind", "fate"), "{{kind}} {{fate}}")],
            note="All but `stored` are lost.",
        ),
        Panel("Waiting to be written", "short", [(total("faqwire_journal_queue_length"), "records")]),
        Panel("Writing of a group", "s", quantiles("faqwire_journal_commit_seconds", 0.5, 0.99)),
        Panel("Traces", "reqps", [(rate("faqwire_traces_total", "outcome"), "{{outcome}}")]),
    ],
)
WORKERS = Row(
    "Workers and reloads",
    [
        Panel("Workers", "short", [(total("faqwire_workers", "state"), "{{state}}")], stacked=True),
        Panel(
            "Restarts of workers",
            "short",
            [("sum (increase(faqwire_worker_restarts_total[$__rate_interval]))", "restarts")],
        ),
        Panel(
            "Reloads of the index",
            "short",
            [("sum by (result) (increase(faqwire_reloads_total[$__rate_interval]))", "{{result}}")],
        ),
    ],
)
ROWS = (TRAFFIC, LATENCY, STAGES, DECISIONS, TROUBLE, BATCHES, CACHE, RECORDS, WORKERS)
