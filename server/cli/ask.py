"""`faqwire ask`: a terminal chat, or one question for a script."""

import asyncio
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import click

from server.cli import options
from server.client import Client
from server.errors import ClientError, RateLimited
from server.http import url_of
from server.messages import Answer, Error, Hello, encode
from server.settings import Settings, read_settings

T = TypeVar("T")

_PROMPT = "you> "


@click.command
@click.argument("text", required=False)
@click.option("--url", help="Address of a running server.  [default: the configured one, or one of its own]")
@click.option("--json", "as_json", is_flag=True, help="Print each reply as the JSON that came over the wire.")
@click.option("--details", is_flag=True, help="Show decision, confidence, candidates and times.")
@click.option("--budget-ms", type=click.IntRange(1), help="Budget of each question.  [default: the server's]")
@click.option("--token-file", type=options.PATH, help="File of the token to show to a server that asks for one.")
@options.index
@options.model
@options.config
def command(
    text: str | None,
    url: str | None,
    budget_ms: int | None,
    token_file: Path | None,
    index: Path | None,
    model: Path | None,
    config: Path | None,
    *,
    as_json: bool,
    details: bool,
) -> None:
    """Ask TEXT, or chat: without TEXT, questions are read from the terminal or line by line from a pipe.

    Without --url a server on the configured port is asked; where there is none, or where --index or --model name what
    shall be asked, one is started for the occasion.
    """
    settings = read_settings(config, index=index, model=model)
    named = index is not None or model is not None  # then no server that serves something else will do
    hello = None if token_file is None else Hello(token=_token_in(token_file))
    with _Background() as background, _connected(background, url, settings, hello, own=named) as client:
        show = _show_json if as_json else _shower(details=details)
        failed = False
        for question in _questions(text):
            reply = background.run(_ask(client, question, budget_ms))
            show(reply)
            failed = failed or isinstance(reply, Error)
    if failed and (text is not None or not sys.stdin.isatty()):
        sys.exit(1)


def _token_in(file: Path) -> str:
    """Not an option's value, which whoever lists processes may read."""
    try:
        return file.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        raise click.UsageError(f"{file} holds no token: tokens are letters, digits, dots and dashes") from None


async def _ask(client: Client, question: str, budget_ms: int | None) -> Answer | Error:
    """Ask; where a long list of questions goes too fast for the server, go slower."""
    while True:
        reply = await client.ask(question, budget_ms=budget_ms)
        if not isinstance(reply, Error) or reply.code != RateLimited.code:
            return reply
        await asyncio.sleep((reply.retry_after_ms or 1000) / 1000)


class _Background:
    """An event loop in a thread of its own: it answers the server's pings while a person thinks."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="connection", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for its result; Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


@contextmanager
def _connected(
    background: _Background, url: str | None, settings: Settings, hello: Hello | None, *, own: bool
) -> Iterator[Client]:
    """A client of the named server, else of the one on the configured port, else of one started for the occasion.

    `own` leaves the configured port out.
    """
    with ExitStack() as stack:
        client = None
        if url is None and not own:
            with suppress(ClientError):
                configured = url_of(settings.host, settings.port)
                client = background.run(Client(configured, open_timeout=2.0, hello=hello).__aenter__())
        if client is None:
            url = url or stack.enter_context(_own_server(background, settings))
            client = background.run(Client(url, hello=hello).__aenter__())
        stack.callback(lambda: background.run(client.__aexit__(None, None, None)))
        yield client


@contextmanager
def _own_server(background: _Background, settings: Settings) -> Iterator[str]:
    from server.app import Server
    from server.engine import load_engine
    from server.logs import configure_logs

    configure_logs("warning", settings.log_format)
    nobody_else = {"host": "127.0.0.1", "port": 0, "metrics_port": None, "require_origin": False}
    plain = {"tls_certificate": None, "tls_key": None, "token_key": None, "token_audience": None}
    own = settings.model_copy(update={**nobody_else, **plain})
    engine = load_engine(own)

    async def start() -> Server:
        server = Server(engine, own)
        await server.start()
        return server

    server = background.run(start())
    try:
        yield server.url
    finally:
        background.run(server.stop())


def _questions(text: str | None) -> Iterator[str]:
    if text is not None:
        yield _checked(text)
        return
    if not sys.stdin.isatty():
        try:
            yield from (_checked(line.strip()) for line in sys.stdin if line.strip())
        except UnicodeDecodeError as exc:
            raise ClientError(f"standard input is not UTF-8 ({exc.reason} at byte {exc.start})") from exc
        return
    with suppress(ImportError):
        import readline  # noqa: F401  importing it gives input() a history and line editing
    click.echo("Ask a question; an empty line or Ctrl-D ends the chat.", err=True)
    with suppress(EOFError):
        while question := input(_PROMPT).strip():
            yield question


def _checked(text: str) -> str:
    """A text that can be sent: Python lets bytes that are no UTF-8 through as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ClientError("the question is not UTF-8; check the terminal's or the file's encoding") from exc
    return text


def _show_json(reply: Answer | Error) -> None:
    click.echo(encode(reply))


class _shower:  # noqa: N801  called like a function
    """Prints replies for people; what came over the wire never reaches the terminal as control codes."""

    def __init__(self, *, details: bool) -> None:
        self._details = details

    def __call__(self, reply: Answer | Error) -> None:
        from rich.markdown import Markdown

        from server.cli.console import err, out

        if isinstance(reply, Error):
            hint = f" (try again in {reply.retry_after_ms} ms)" if reply.retry_after_ms else ""
            err.print(f"{_plain(reply.code)}: {_plain(reply.message)}{hint}", markup=False)
            return
        out.print(Markdown(_plain(reply.text)))
        if reply.decision == "clarify":
            for candidate in reply.candidates:
                out.print(f"  - {_plain(candidate.question)}", markup=False)
        if reply.entry is not None and reply.entry.url:
            out.print(f"  {_plain(reply.entry.url)}", markup=False)
        if self._details:
            out.print(_details(reply), markup=False, style="dim")


def _details(reply: Answer) -> str:
    times = ", ".join(f"{stage} {milliseconds:.1f}" for stage, milliseconds in reply.timing_ms.items())
    lines = [f"{reply.decision}, confidence {reply.confidence:.2f}, confirmation {reply.confirmation}; ms: {times}"]
    lines += [f"  {c.confidence:.2f} {_plain(c.id)}: {_plain(c.question)}" for c in reply.candidates]
    return _plain("\n".join(lines))


def _plain(text: str) -> str:
    return "".join(c for c in text if c == "\n" or c.isprintable())
