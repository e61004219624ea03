"""What it costs to look at a message: on the event loop after its reply, and in the thread that sends traces.

    python -m bench.tracing

No server and no sockets: one message that both models have read is shown again and again to what looks at messages, and
its spans are made and encoded. The event loop's share is in seconds of every message, the thread's in those of a traced
one. Prints Markdown.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from prometheus_client import CollectorRegistry
from structlog import get_logger

from bench.machine import heading
from server.ended import Ended
from server.logs import configure_logs
from server.messages import Answer
from server.pipeline import Running
from server.slow import SlowLog
from server.spans import Kept, Spans
from server.telemetry import Metrics, TraceMetrics
from server.tracing import GROUP, Tracing
from server.watching import Watch
from server.work import Request

ROUNDS = 7


def message() -> Ended:
    """One that went through every stage."""
    request: Request[Any, Any] = Request([], 1.001, 1.1, cast("Any", None))
    answer = Answer("1", "r" * 16, "answer", "", None, 0.9, (), (), "confirmed", {}, "20261123-120000")
    stages = {"tokenize": 0.0002, "queue": 0.001, "encode": 0.004, "search": 0.0005}
    stages |= {"confirm_queue": 0.001, "confirm": 0.009, "decide": 0.0001}
    nothing = cast("Any", None)
    running = Running("", 1.1, nothing, nothing, request, cast("Any", stages), 3, request, 1.02)
    return Ended("c" * 32, answer, 1.0, 1.021, 1.022, 1.1, running)


def microseconds(count: int, run: Callable[[], object]) -> float:
    """How long one takes: the median of rounds, each of so many."""
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(count):
            run()
        took.append((time.process_time() - began) / count)
    return 1e6 * statistics.median(took)


def quiet(metrics: TraceMetrics) -> Tracing:
    """Tracing that no lot falls on."""
    return Tracing("http://127.0.0.1:1/", share=0.0, model="m", variant="v", clock=time.monotonic, metrics=metrics)


def main() -> None:
    """Measure, and print."""
    configure_logs("info", "json")
    log, ended, reply = get_logger("bench"), message(), message().reply
    tracing = quiet(Metrics(CollectorRegistry()).tracing)
    off, slow, both = Watch(None, None), Watch(SlowLog(0.25), None), Watch(SlowLog(0.25), tracing)

    def line() -> None:
        log.debug("replied", connection=ended.connection, id=reply.id, outcome="answer", decision="", code=None, ms=1.0)

    spans, kept = Spans("model", "int8"), [Kept(ended, number + 1, slow=False, offset=1) for number in range(GROUP)]
    made = [span for one in kept for span in spans.of(one)]
    figures = {
        "event loop: what there is to tell of a message, put together": microseconds(20_000, message_of(ended)),
        "event loop: the line of a reply, at a level that is not written": microseconds(20_000, line),
        "event loop: nobody looks": microseconds(20_000, lambda: off(ended)),
        "event loop: slow messages are logged, and this is none": microseconds(20_000, lambda: slow(ended)),
        "event loop: and traces are sent, and the lot falls on others": microseconds(20_000, lambda: both(ended)),
        "thread: spans of a traced message": microseconds(20, lambda: [[*spans.of(one)] for one in kept]) / GROUP,
        "thread: encoding them": microseconds(20, lambda: encode_spans(made).SerializeToString()) / GROUP,
    }
    tracing.close(1)
    print(heading("python -m bench.tracing"))
    print("| part | microseconds a message |\n|---|---|")
    for part, took in figures.items():
        print(f"| {part} | {took:.2f} |")
    print(f"\nA trace of {len(made) // GROUP} spans has {len(encode_spans(made).SerializeToString()) // GROUP} bytes.")


def message_of(ended: Ended) -> Callable[[], Ended]:
    """What makes one like it."""
    return lambda: Ended("c", ended.reply, 1.0, 1.021, 1.022, 1.1, ended.running)


if __name__ == "__main__":
    main()
