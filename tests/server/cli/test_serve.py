"""Guards `faqwire serve` as a process: what it prints, what it logs, and how it ends."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.server.cli.site import FAQWIRE, Process, Site, holding
from tests.server.raw import UNSEEN


def address(process: Process) -> str:
    """The address that a starting server prints when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"faqwire is listening on (ws://127\.0\.0\.1:\d+/)\n", line)
    assert found, line or process.communicate()[1]
    return found[1]


def end(process: Process, number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal, and give the exit status and what was printed last."""
    process.send_signal(number)
    out, err = process.communicate()
    return process.returncode, out, err


def test_port_0_picks_one_and_prints_it(site: Site) -> None:
    """The address goes to standard output with what to type next; the logs are JSON on standard error."""
    before = site.snapshot()
    with site.start("serve", "--port", "0", "--sessions", "1", "--variant", "fp32") as process:
        url = address(process)
        assert process.stdout is not None
        hint = process.stdout.readline()
        assert hint == f'ask it something, from another terminal:  faqwire ask --url {url} "where is my order"\n'
        done = site.run("ask", "--url", url, "Where is my order?", "--json")
        assert json.loads(done.stdout)["entry"]["id"] == "track-order"
        code, out, err = end(process, signal.SIGTERM)
    assert (code, out) == (0, "")
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events] == ["listening", "draining", "stopped"]
    assert {**events[0], "timestamp": ""} == {
        "event": "listening",
        "level": "info",
        "timestamp": "",
        "url": url,
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "variant": "fp32",
        "provider": "CPUExecutionProvider",
        "sessions": 1,
        "cross_encoder": None,
        "metrics": events[0]["metrics"],
        "index": (site.index / "current").readlink().name,
        "entries": events[0]["entries"],
    }
    assert site.snapshot() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(site: Site, number: signal.Signals) -> None:
    """On a signal every question that was accepted is answered, the client is told twice, and the exit status is 0."""
    with site.start("serve", "--port", "0", "--budget-ms", "10000") as process:
        with connect(address(process), compression=None, proxy=None) as client:
            client.recv()
            for question in range(50):
                client.send(json.dumps({"type": "ask", "id": f"{question}", "text": UNSEEN}))
            client.send('{"type":"ping"}')
            # Frames are looked at in order: with the pong all of them have been accepted.
            messages = list(iter(client.recv, '{"type":"pong","id":null}'))
            process.send_signal(number)
            messages += list(client)
            assert client.close_code == 1001
        replies = [json.loads(message) for message in messages]
        answers = [reply for reply in replies if reply["type"] == "answer"]
        assert sorted(int(answer["id"]) for answer in answers) == list(range(50))
        assert [reply["type"] for reply in replies if reply not in answers] == ["going_away"]
        _, err = process.communicate()
    assert process.returncode == 0
    assert "Traceback" not in err


def test_rude_clients_leave_no_trace_in_the_log(site: Site) -> None:
    """Clients that reset, stop halfway or speak something else raise no alarm, and the server goes on."""
    with site.start("serve", "--port", "0", "--log-level", "warning") as process:
        url = address(process)
        host, _, port = url.removeprefix("ws://").rstrip("/").partition(":")
        for greeting in (
            b"",
            b"GET / HT",
            b"\x16\x03\x01\x00\xff",
            b"GET /%ff HTTP/1.1\r\n\r\n",
            b"GET //[ HTTP/1.1\r\n",
        ):
            with socket.create_connection((host, int(port))) as rude:
                rude.sendall(greeting)
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with connect(url, compression=None, proxy=None) as client:
            client.recv()
            client.send(json.dumps({"type": "ask", "id": "1", "text": UNSEEN}))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.shutdown(socket.SHUT_RDWR)
        with connect(url, compression=None, proxy=None) as client:
            client.recv()
            client.send(b"\xff" * 100_000)
            with pytest.raises(ConnectionClosed):
                client.recv()
        assert json.loads(site.run("ask", "--url", url, "Where is my order?", "--json").stdout)["type"] == "answer"
        code, _, err = end(process, signal.SIGINT)
    assert (code, err) == (0, "")


def test_settings_reach_the_server(site: Site) -> None:
    """The environment and the settings file count for what has no flag, and console logs are for people."""
    (site.folder / "faqwire.toml").write_text('max_text = 7\nlog_format = "console"\n', encoding="utf-8")
    with site.start("serve", "--port", "0", "--budget-ms", "77") as process:
        with connect(address(process), compression=None, proxy=None) as client:
            limits = json.loads(client.recv())["limits"]
        code, _, err = end(process, signal.SIGTERM)
    assert (limits["max_text"], limits["budget_ms"]) == (7, 77)
    assert code == 0
    assert "[info" in err.splitlines()[0]


def test_a_token_from_a_file(site: Site) -> None:
    """`faqwire ask` shows the token in a file; without it, and with what is none, it says why it is not answered."""
    secret = "s" * 40
    holding("faqwire.toml", 'token_key = "secret"\n')(site.folder)
    holding("secret", secret)(site.folder)
    holding("token", jwt.encode({"exp": time.time() + 3600}, secret, "HS256") + "\n")(site.folder)
    holding("other", "t\u00f6ken")(site.folder)
    with site.start("serve", "--port", "0", "--sessions", "1") as process:
        url = address(process)
        asked = ("ask", "--url", url, "Where is my order?", "--json")
        assert json.loads(site.run(*asked, "--token-file", "token").stdout)["entry"]["id"] == "track-order"
        refused = site.run(*asked)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "4450" in refused.stderr
        for file, reason in (("other", "other holds no token"), ("nowhere", "nowhere: No such file")):
            done = site.run(*asked, "--token-file", file)
            assert done.returncode != 0
            assert reason in done.stderr
            assert "Traceback" not in done.stderr


def test_tokens_are_not_logged(site: Site) -> None:
    """A server that asks for tokens writes none of them, nor its key, even where it logs all it can."""
    secret, guess = "s" * 40, "faqwire.token.abc.def.ghi"
    holding("faqwire.toml", 'token_key = "secret"\n')(site.folder)
    holding("secret", secret)(site.folder)
    with site.start("serve", "--port", "0", "--sessions", "1", "--log-level", "debug") as process:
        url = address(process)
        token = jwt.encode({"exp": time.time() + 3600}, secret, "HS256")
        for shown in ({"additional_headers": {"Authorization": f"Bearer {token}"}}, {"subprotocols": ["faqwire.v1"]}):
            with connect(url, proxy=None, **shown) as client:
                assert json.loads(client.recv())["type"] == "welcome"
                client.send(json.dumps({"type": "hello", "client": "test/1", "token": token}))
                client.send(json.dumps({"type": "ping"}))
                assert json.loads(client.recv())["type"] == "pong"
        with pytest.raises(InvalidStatus):
            connect(url, proxy=None, subprotocols=[Subprotocol("faqwire.v1"), Subprotocol(guess)])
        code, _, err = end(process, signal.SIGTERM)
    assert code == 0
    assert "test/1" in err
    assert not [word for word in (secret, token, token.rpartition(".")[2], guess) if word in err]


def test_the_log_of_a_real_server(site: Site) -> None:
    """At debug every line is JSON, with ids that the journal knows and without texts; at info clients have none."""
    (site.folder / "faqwire.toml").write_text('journal = "journal.db"\njournal_text = "full"\n', encoding="utf-8")
    words = f"{UNSEEN} xylophone"
    for level in ("debug", "info"):
        with site.start("serve", "--port", "0", "--sessions", "1", "--log-level", level) as process:
            with connect(address(process), compression=None, proxy=None) as client:
                client.recv()
                client.send(json.dumps({"type": "hello", "visitor": "somebody"}))
                client.send(json.dumps({"type": "ask", "id": "q-1", "text": words}))
                assert json.loads(client.recv())["type"] == "answer"
            code, _, err = end(process, signal.SIGTERM)
        assert code == 0
        events = [json.loads(line) for line in err.splitlines()]
        assert all({"event", "level", "timestamp"} <= event.keys() for event in events)
        ids = {event["connection"] for event in events if "connection" in event}
        assert "xylophone" not in err
        assert "somebody" not in err
        if level == "info":
            assert [event["event"] for event in events] == ["listening", "draining", "stopped"]
            continue
        [replied] = [event for event in events if event["event"] == "replied"]
        assert replied["id"] == "q-1"
        kept = site.run("journal", "export", "--format", "jsonl")
        assert {json.loads(line)["connection"] for line in kept.stdout.splitlines()} == ids


def test_a_reload_before_it_serves(site: Site) -> None:
    """SIGHUP while it loads is no end, as it would be by default, and is made up for by one reload."""
    with site.start("serve", "--port", "0") as process:
        hangup = 1 << (signal.SIGHUP - 1)
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            pytest.skip("nothing tells which signals a process catches")
        while not _caught(status) & hangup:
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        events = []
        for line in process.stderr:
            events.append(json.loads(line)["event"])
            if events[-1] == "nothing has changed":
                break
        assert events == ["listening", "reloading", "nothing has changed"]
        code, _, err = end(process, signal.SIGTERM)
    assert code == 0
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["draining", "stopped"]


def test_nobody_reads_where_it_listens(site: Site) -> None:
    """The address is in the log too: a server whose standard output leads nowhere serves, and ends as any other."""
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [*FAQWIRE, "serve", "--port", "0", "--log-format", "json"],
        env=site.environment(),
        cwd=site.folder,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writer)
        assert process.stderr is not None
        url = json.loads(process.stderr.readline())["url"]
        assert json.loads(site.run("ask", "--url", url, "Where is my order?", "--json").stdout)["type"] == "answer"
        assert end(process, signal.SIGTERM)[0] == 0


# Makes a terminal its own, and becomes another command in it.
IN_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for descriptor in range(3):
    os.dup2(terminal, descriptor)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_its_terminal_is_closed(site: Site, workers: int) -> None:
    """That is a SIGHUP like any other: a server in the foreground reloads, and serves on without the terminal."""
    flags = ("--port", "0", "--workers", str(workers), "--log-format", "json")
    keyboard, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, os.ttyname(terminal), *FAQWIRE, "serve", *flags],
        env=site.environment(),
        cwd=site.folder,
    ) as process:
        said = ""
        while "ask it something" not in said:
            said += os.read(keyboard, 4096).decode()
        os.close(terminal)
        os.close(keyboard)
        found = re.search(r'"metrics": "(http://[^"]+)"', said)
        assert found, said
        while 'faqwire_reloads_total{result="unchanged"} 1.0' not in page_of(found[1]):
            assert process.poll() is None
        url = re.search(r"listening on (\S+)", said)
        assert url, said
        assert json.loads(site.run("ask", "--url", url[1], "Where is my order?", "--json").stdout)["type"] == "answer"
        process.terminate()
        assert process.wait() == 0


def page_of(url: str) -> str:
    """What a page says now."""
    with urllib.request.urlopen(url) as response:  # noqa: S310 its own
        page: str = response.read().decode()
    return page


def _caught(status: Path) -> int:
    return next(int(line.split()[1], 16) for line in status.read_text().splitlines() if line.startswith("SigCgt"))
