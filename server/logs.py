"""Structured logs on standard error: JSON for machines, or lines for people."""

import atexit
import logging
import sys
from contextlib import suppress
from typing import Literal, TextIO, cast

import structlog

# What websockets writes to. Its debug lines have the headers and the frames that come and go, and so tokens and what
# visitors type; its errors are tracebacks of clients that leave without a word. Whatever matters is logged by
# connections. It is no child of the root logger, so that nobody who turns on all logs turns on this one.
SILENT = logging.Logger("faqwire.websockets", level=logging.CRITICAL + 1)  # noqa: LOG001 for this very reason


class _Stderr:
    """Standard error, as far as it can be written: a lost log line must not cost a reply."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # it is None where it was closed before the start
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()


def _let_go() -> None:
    """Have lines that could not be written lost for good: Python would try once more, and end with a status of 120."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        sys.stderr = None


def _printable(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what is no character to read: ids come from clients, and must not tell a terminal what to do."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return event


def configure_logs(level: str, style: Literal["auto", "console", "json"]) -> None:
    """Set up logging for the whole process."""
    atexit.unregister(_let_go)
    atexit.register(_let_go)
    terminal = sys.stderr is not None and sys.stderr.isatty()
    console = style == "console" or (style == "auto" and terminal)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _printable if console else structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )
