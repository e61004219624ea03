"""Guards `server.logs`: JSON for machines, lines for people, both on standard error."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from server.logs import SILENT, configure_logs


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """Leave logging as it was found."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def fail() -> None:
    """Raise something."""
    raise ValueError("the cause")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Each event is a line of JSON with its level, its time and its facts, an exception included."""
    configure_logs("info", "json")
    log = structlog.get_logger()
    log.info("listening", url="ws://[::1]:1/", entries=3)
    try:
        fail()
    except ValueError:
        log.exception("batch failed")
    out, err = capsys.readouterr()
    first, second = map(json.loads, err.splitlines())
    assert out == ""
    time = first.pop("timestamp")
    assert time.endswith("Z")
    assert first == {"event": "listening", "level": "info", "url": "ws://[::1]:1/", "entries": 3}
    assert (second["event"], second["level"]) == ("batch failed", "error")
    assert "ValueError: the cause" in second["exception"]


def test_console(capsys: pytest.CaptureFixture[str]) -> None:
    """For people an event is a line of text, and an exception a plain traceback."""
    configure_logs("info", "console")
    log = structlog.get_logger()
    log.info("listening", url="ws://127.0.0.1:1/")
    try:
        fail()
    except ValueError:
        log.exception("batch failed")
    out, err = capsys.readouterr()
    assert out == ""
    assert "listening" in err.splitlines()[0]
    assert "url=ws://127.0.0.1:1/" in err.splitlines()[0]
    assert err.rstrip().endswith("ValueError: the cause")


def test_auto_is_json_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    """Where standard error is not a terminal, "auto" writes JSON."""
    configure_logs("info", "auto")
    structlog.get_logger().info("hello")
    assert json.loads(capsys.readouterr().err)["event"] == "hello"


def test_level(capsys: pytest.CaptureFixture[str]) -> None:
    """Events below the level are not written."""
    configure_logs("warning", "json")
    log = structlog.get_logger()
    log.info("chatter")
    log.warning("trouble")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["trouble"]


def test_websockets_keeps_to_itself(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Neither tracebacks of clients that leave without a word nor what comes and goes is written, whoever asks."""
    configure_logs("debug", "json")
    with caplog.at_level(logging.DEBUG):
        SILENT.critical("secret")
    assert not SILENT.isEnabledFor(logging.CRITICAL)
    assert "secret" not in caplog.text + capsys.readouterr().err


def test_a_log_that_cannot_be_written_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With standard error closed, or its reader gone, an event is lost and nobody fails for it."""
    configure_logs("info", "json")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        structlog.get_logger().info("into a broken pipe")
        with suppress(BrokenPipeError):
            broken.close()
        structlog.get_logger().info("into a closed file")


def test_what_cannot_be_written_is_no_failed_end() -> None:
    """A process whose log has no reader any more ends with the status that it would have had."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "import structlog; from server.logs import configure_logs; configure_logs('info', 'json')"
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"{code}; structlog.get_logger().info('stopped')"],
            stderr=writer,
            check=False,
            cwd=Path(__file__).parents[2],
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        )
    finally:
        os.close(writer)
    assert done.returncode == 0


def test_console_escapes_what_clients_write(capsys: pytest.CaptureFixture[str]) -> None:
    """An id with a terminal's control sequence or a line break in it is shown as such, and obeyed by no terminal."""
    configure_logs("info", "console")
    structlog.get_logger().info("slow message", id="a\x1b[2Jb", other="c\nd", plain="größer 北京")
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert len(err.splitlines()) == 1
    assert "a\\x1b[2Jb" in err
    assert "größer 北京" in err
