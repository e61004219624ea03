"""Guards `faqwire ask`: one question, a pipe of them, or a chat, with a running server or one of its own."""

import json
import os
import pty
import re
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from server.cli.ask import _shower
from server.messages import Answer, CandidateView, EntryView, Error
from tests.server.cli.site import Site, holding, missing
from tests.server.cli.test_serve import address, end


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    """The address of a running server."""
    with site.start("serve", "--port", "0", "--log-level", "warning") as process:
        yield address(process)
        assert end(process, signal.SIGTERM)[::2] == (0, "")


def test_json(site: Site, url: str) -> None:
    """With --json each reply is the line of JSON that came over the wire, and nothing else is printed."""
    done = site.run("ask", "--url", url, "--json", "Where is my order?")
    reply = json.loads(done.stdout)
    assert (reply["type"], reply["entry"]["id"], reply["confirmation"]) == ("answer", "track-order", "not_needed")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_pipe(site: Site, url: str) -> None:
    """Without a question each line of a pipe is one; empty lines are none; a refused one makes the exit status 1."""
    done = site.run("ask", "--url", url, "--json", stdin=f"Where is my order?\n\n   \n{'x' * 1001}\nhow to order")
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["answer", "error", "answer"]
    assert done.returncode == 1


def test_a_pipe_that_is_too_fast(site: Site) -> None:
    """Where the server takes only so many messages a second, the questions of a pipe wait for it."""
    holding("faqwire.toml", "message_burst = 1\nmessages_per_second = 50\n")(site.folder)
    with site.start("serve", "--port", "0", "--log-level", "warning") as process:
        done = site.run("ask", "--url", address(process), "--json", stdin="Where is my order?\n" * 5)
        assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["answer"] * 5
        assert done.returncode == 0
        assert end(process, signal.SIGTERM)[::2] == (0, "")


def test_refused_question(site: Site, url: str) -> None:
    """A question that the server refuses is an error on standard error, and exit status 1."""
    done = site.run("ask", "--url", url, "--budget-ms", "1", "hello there")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "invalid_budget: budget_ms is 1; it may be 5 to 10000\n"


def test_details(site: Site, url: str) -> None:
    """On request decision, confidence, candidates and times stand below the answer."""
    plain = site.run("ask", "--url", url, "Where is my order?").stdout
    done = site.run("ask", "--url", url, "Where is my order?", "--details")
    assert done.stdout.startswith(plain)
    assert re.fullmatch(
        r"answer, confidence 1\.00, confirmation not_needed; ms: total \d+\.\d\n  1\.00 track-order: .*\n",
        done.stdout.removeprefix(plain),
    )


def test_running_server_is_found_by_its_configured_port(site: Site, url: str) -> None:
    """Without --url the configured address is asked first: no model is needed where a server runs."""
    port = url.rstrip("/").rpartition(":")[2]
    missing("var/model")(site.folder)
    done = site.run("ask", "Where is my order?", "--json", env={"FAQWIRE_PORT": port})
    assert json.loads(done.stdout)["entry"]["id"] == "track-order"


def test_naming_an_index_means_that_index(site: Site, url: str) -> None:
    """Who names an index or a model is not answered by a server that happens to run with another."""
    port = url.rstrip("/").rpartition(":")[2]
    done = site.run("ask", "hi", "--index", "nowhere", env={"FAQWIRE_PORT": port})
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere does not exist; build it" in done.stderr


def test_own_server(site: Site) -> None:
    """Where no server runs one is started for the occasion; it is gone afterwards, and leaves nothing behind."""
    before = site.snapshot()
    done = site.run("ask", "Where is my order?")
    assert "Track parcel" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert site.snapshot() == before


def test_stranger_on_the_configured_port(site: Site) -> None:
    """Where something else listens on the configured port, a server of its own answers too."""

    def hang_up(listener: socket.socket) -> None:
        listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        stranger = threading.Thread(target=hang_up, args=(listener,))
        stranger.start()
        done = site.run("ask", "Where is my order?", env={"FAQWIRE_PORT": str(listener.getsockname()[1])})
        stranger.join()
    assert "Track parcel" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("own", [False, True])
def test_interrupted(site: Site, url: str, *, own: bool) -> None:
    """Ctrl-C while it waits for a question ends it with one line and exit status 130."""
    with site.start("ask", *([] if own else ["--url", url]), "--json") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("Where is my order?\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["type"] == "answer"
        assert end(process, signal.SIGINT) == (130, "", "\nfaqwire: interrupted\n")


def test_chat_on_a_terminal(site: Site, url: str) -> None:
    """On a terminal it asks for questions until an empty line."""
    terminal, side = pty.openpty()
    with os.fdopen(terminal, "r+b", buffering=0) as person, site.start("ask", "--url", url, stdio=side) as process:
        os.close(side)
        shown = b""
        for question in (b"Where is my order?\n", b"\n"):
            while not shown.endswith(b"you> "):
                shown += person.read(1)
            person.write(question)
            shown += b"|"
        assert process.wait() == 0
    assert b"Ask a question; an empty line or Ctrl-D ends the chat." in shown
    assert b"Track parcel" in shown


ANSWER = Answer(
    id="1",
    ref="r",
    decision="clarify",
    text="Did you **mean**",
    entry=None,
    confidence=0.4,
    candidates=(CandidateView("a", "How \x1b[2Jmuch?", 0.4), CandidateView("b", "How [bold]long[/bold]?", 0.3)),
    follow_ups=(),
    confirmation="disabled",
    timing_ms={"total": 1.25},
    index="1",
)


def shown(reply: Answer | Error, capsys: pytest.CaptureFixture[str], *, details: bool = False) -> tuple[str, str]:
    """What is printed for a reply, on standard output and on standard error."""
    show: Any = _shower(details=details)
    show(reply)
    return capsys.readouterr()


def test_options_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """A clarification lists what may be meant; what came over the wire is text, not commands to the terminal."""
    out, err = shown(ANSWER, capsys)
    assert out.split("\n", 1)[1] == "  - How [2Jmuch?\n  - How [bold]long[/bold]?\n"
    assert out.startswith("Did you mean")
    assert err == ""


def test_answers_show_where_to_read_more(capsys: pytest.CaptureFixture[str]) -> None:
    """An answer is followed by its entry's address, and not by candidates."""
    entry = EntryView("a", "q", "It is \x9b31mred\u202e", "https://a.example/\x07")
    reply = msgspec.structs.replace(ANSWER, decision="answer", text=entry.answer, entry=entry)
    out, _ = shown(reply, capsys)
    assert [line.rstrip() for line in out.splitlines()] == ["It is 31mred", "  https://a.example/"]


def test_errors_say_when_to_try_again(capsys: pytest.CaptureFixture[str]) -> None:
    """An error stands on standard error with its code, and with the time to wait where there is one."""
    out, err = shown(Error("1", "overloaded", "full\x1b[0m", retryable=True, retry_after_ms=9), capsys)
    assert (out, err) == ("", "overloaded: full[0m (try again in 9 ms)\n")
