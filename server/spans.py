"""Asks as OpenTelemetry has them: a span for the ask, and one inside of it for each stage; no texts.

OpenTelemetry is imported by whoever calls `open_exporter` first, and by nobody else: it belongs to the extra `tracing`.
"""

import os
import random
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from server.ended import Ended
from server.errors import DeadlineExceeded, Internal, Overloaded, SettingsError
from server.messages import Answer, Error

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

# How long the collector may take for a group of traces, tries after failures included, in seconds.
EXPORT_SECONDS = 5.0
# Errors that are the server's and not the client's.
_FAULTS = {Internal.code, DeadlineExceeded.code, Overloaded.code}

Value = str | int | float | bool


class Kept(msgspec.Struct, frozen=True, gc=False):
    """An ask that becomes a trace.

    Attributes:
        ended: the ask.
        trace: the trace's id, not 0.
        slow: whether it is kept because it was slow.
        offset: nanoseconds from the event loop's clock to those since 1970.
    """

    ended: Ended
    trace: int
    slow: bool
    offset: int


def open_exporter(endpoint: str) -> "SpanExporter":
    """What sends spans to a collector.

    Args:
        endpoint: its URL; one without a path is that of a collector, whose path for traces is known.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise SettingsError(
            "trace_endpoint is set, and OpenTelemetry is not installed; install it with "
            "`pip install -c constraints.txt '.[tracing]'`, or leave trace_endpoint out"
        ) from None
    at_root = not urlsplit(endpoint).path.strip("/")
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces" if at_root else endpoint, timeout=EXPORT_SECONDS)


class Spans:
    """Makes spans of asks.

    Args:
        model: name of the bi-encoder's model.
        variant: the precision that it runs in.
    """

    def __init__(self, model: str, variant: str) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        facts: dict[str, Value] = {"service.version": version("faqwire"), "process.pid": os.getpid()}
        self._resource: Resource = Resource.create(facts if named else {SERVICE_NAME: "faqwire", **facts})
        self._scope = InstrumentationScope("faqwire", version("faqwire"))
        self._model: dict[str, Value] = {"faqwire.model": model, "faqwire.variant": variant}

    def of(self, kept: Kept) -> Iterator["ReadableSpan"]:
        """The spans of an ask, its own first."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def span(
            name: str, parent: SpanContext | None, began: float, ended: float, facts: dict[str, Value], *, fault: bool
        ) -> ReadableSpan:
            own = SpanContext(kept.trace, random.getrandbits(64) or 1, is_remote=False, trace_flags=sampled)
            return ReadableSpan(
                name,
                own,
                parent,
                self._resource,
                facts,
                kind=SpanKind.SERVER if parent is None else SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR if fault else StatusCode.UNSET),
                start_time=kept.offset + round(began * 1e9),
                end_time=kept.offset + round(ended * 1e9),
                instrumentation_scope=self._scope,
            )

        sampled, ended, reply = TraceFlags(TraceFlags.SAMPLED), kept.ended, kept.ended.reply
        fault = isinstance(reply, Error) and reply.code in _FAULTS
        root = span("ask", None, ended.arrived, ended.written, {**self._model, **facts_of(kept)}, fault=fault)
        yield root
        for lap in ended.laps():
            yield span(lap.stage, root.context, lap.began, lap.began + lap.seconds, {}, fault=False)


def facts_of(kept: Kept) -> dict[str, Value]:
    """What a trace says of its ask; what is not known of it, or does not apply, is left out."""
    ended, reply = kept.ended, kept.ended.reply
    facts: dict[str, Value] = {
        "faqwire.connection": ended.connection,
        "faqwire.id": reply.id or "",
        "faqwire.outcome": ended.outcome,
        "faqwire.budget_ms": round(1000 * (ended.deadline - ended.arrived), 3),
        "faqwire.slow": kept.slow,
    }
    if ended.running is not None:
        facts["faqwire.waiting"] = ended.running.ahead
    match reply:
        case Answer():
            facts["faqwire.ref"] = reply.ref
            facts["faqwire.decision"] = reply.decision
            facts["faqwire.confirmation"] = reply.confirmation
            facts["faqwire.index"] = reply.index
        case Error():
            facts["error.type"] = reply.code
    return facts
