"""Guards the protocol with clients that share nothing with faqwire: two WebSockets from npm, and a browser's own."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator

from server.app import Server
from tests.server.conftest import ServerFactory
from tests.server.test_feedback import Book

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).with_name("clients")
SCHEMA = ROOT / "docs" / "schema.json"
# Where `make clients` installs what is from npm, a browser included.
LEAST_NODE = (20, 18, 1)
INSTALLED = ROOT / ".cache" / "clients"
UNPACKED = INSTALLED / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-zygote"),
    "--remote-debugging-port=0",  # it stays when the page is loaded
)
Report = dict[str, Any]


@pytest.fixture
async def book() -> Book:
    """A sink that records at once."""
    book = Book()
    book.open.set()
    return book


def check(report: Report, book: Book) -> None:
    """What has to come of the scenario, whoever ran it."""
    validator = Draft202012Validator({**json.loads(SCHEMA.read_text()), "oneOf": [{"$ref": "#/$defs/ServerMessage"}]})
    messages = [json.loads(text) for text in report["messages"]]
    for message in messages:
        validator.validate(message)
    assert report["protocol"] == "faqwire.v1"
    ends = Counter(one.get("id") for one in messages)
    assert {one["type"] for one in report["answers"]} == {"answer"}
    assert all(ends[f"ask {number}"] == 1 for number in range(40))
    assert (report["known"]["decision"], report["known"]["entry"]["id"]) == ("answer", "track-order")
    assert report["said"] == {"type": "accepted", "id": "said"}
    assert [(one.ref, one.visitor, one.comment) for one in book.kept] == [
        (report["known"]["ref"], "someone", "grüße 👍")
    ]
    assert "Where is my order?" in {one["question"] for one in report["typing"]["suggestions"]}
    assert report["pong"] == {"type": "pong", "id": "there?"}
    cancelled = sum(one["type"] == "cancelled" for one in report["drops"])
    late = sum(one.get("code") == "not_in_flight" for one in messages)
    assert {one["type"] for one in report["drops"]} <= {"cancelled", "answer"}
    assert cancelled > 0
    assert cancelled + late == 30
    assert all(ends[f"drop {number}"] == 1 for number in range(30))
    assert [one["code"] for one in report["errors"]] == ["invalid_text", "unknown_type", "invalid_message"]
    assert report["closed"] == {"code": 1000, "wasClean": True}
    assert report["tooLarge"]["code"] == 1009


@pytest.fixture
def node() -> str:
    """The command `node`, as new as what `make clients` installs needs it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, version.removeprefix("v").split("."))) < LEAST_NODE:
        pytest.skip(f"node {version} is older than v{'.'.join(map(str, LEAST_NODE))}")
    return node


@pytest.mark.parametrize("library", ["ws", "undici"])
async def test_npm(start_server: ServerFactory, book: Book, node: str, library: str) -> None:
    """A WebSocket from npm speaks the whole protocol, and what it hears is valid to npm's validator of schemas."""
    if not (INSTALLED / "node_modules" / library).is_dir():
        pytest.skip(f"npm's {library} is not installed; `make clients` does it")
    async with start_server(recorder=book) as server:
        script = FOLDER / "node.mjs"
        process = await asyncio.create_subprocess_exec(
            *(node, str(script), str(INSTALLED), library, server.url, str(SCHEMA)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    report = json.loads(out)
    assert report["validated"] == len(report["messages"]) >= 80  # one more for each cancel that comes too late
    check(report, book)


@dataclass(frozen=True)
class Browser:
    """A browser to start: its command, and variables that it needs."""

    command: str
    environment: dict[str, str]


@pytest.fixture
def browser() -> Browser:
    """A Chromium: the one that TEST_BROWSER names, an installed one, or the one that `make clients` unpacks."""
    named = os.environ.get("TEST_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if named is not None:
        return Browser(named, {})
    if not (UNPACKED / "chromium").is_file():
        pytest.skip("no Chromium is installed; `make clients` unpacks one where npm has it for the machine")
    return Browser(str(UNPACKED / "chromium"), {"LD_LIBRARY_PATH": str(UNPACKED / "al2023" / "lib")})


class Site:
    """A site of one page on a port of its own, to which that page reports."""

    def __init__(self) -> None:
        self.report: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self.origin = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            body, kind, status = b"", "text/plain", "200 OK"
            name = path.partition("?")[0].removeprefix("/")
            if (method, name) == ("POST", "report"):
                [length] = [line[15:] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
                self.report.set_result(json.loads(await reader.readexactly(int(length))))
            elif name in {"page.html", "scenario.mjs"}:
                body = await asyncio.to_thread((FOLDER / name).read_bytes)
                kind = "text/html" if name == "page.html" else "text/javascript"
            else:
                status = "404 Not Found"
            lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """A site on loopback."""
    page = Site()
    async with await asyncio.start_server(page, "127.0.0.1", 0) as listener:
        page.origin = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield page


async def visit(browser: Browser, page: Site, server: Server, folder: Path, run: str = "whole") -> Report:
    """Open the page in a browser with a new profile, and wait for its report."""
    process = await asyncio.create_subprocess_exec(
        *(browser.command, *FLAGS, f"--user-data-dir={folder / 'profile'}"),
        f"{page.origin}/page.html?run={run}&url={quote(server.url, safe='')}",
        env={**os.environ, **browser.environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    ended = asyncio.create_task(process.wait())
    try:
        either: set[asyncio.Future[Any]] = {page.report, ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        assert page.report.done(), f"{browser.command} ended with status {process.returncode} and no report"
        return page.report.result()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and all of its helpers
        await ended


async def test_browser(start_server: ServerFactory, book: Book, browser: Browser, tmp_path: Path) -> None:
    """A page's own script speaks the whole protocol from a browser, where the page's origin is listed."""
    async with site() as page, start_server(recorder=book, allowed_origins=(page.origin,)) as server:
        report = await visit(browser, page, server, tmp_path)
    assert "problem" not in report
    assert report["origin"] == page.origin
    assert "Chrome" in report["agent"]
    check(report, book)


async def test_browser_of_another_origin(start_server: ServerFactory, browser: Browser, tmp_path: Path) -> None:
    """A page whose origin is not listed gets no connection through its visitor's browser."""
    async with site() as page, site() as listed, start_server(allowed_origins=(listed.origin,)) as server:
        report = await visit(browser, page, server, tmp_path, run="refused")
    assert (report["opened"], report["code"]) == (False, 1006)
