"""`faqwire serve`: answer messages over websockets."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli import options

if TYPE_CHECKING:
    from server.settings import Settings


@click.command
@options.index
@options.model
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one.  [default: 8765]")
@options.provider
@options.variant
@options.search
@options.cross_encoder
@click.option("--workers", type=click.IntRange(1), help="Processes that serve the port together.  [default: 1]")
@click.option("--sessions", type=click.IntRange(0), help="Model sessions; 0 is one more than cores.  [default: 0]")
@click.option("--budget-ms", type=click.IntRange(1), help="Budget of messages that bring none.  [default: 100]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least level to log.")
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), help="How logs are written.")
@options.config
def command(config: Path | None, **flags: object) -> None:
    """Serve an index until SIGINT or SIGTERM; SIGHUP loads it anew.

    Every other setting can be given in the environment (FAQWIRE_...) or in the settings file.
    """
    from server.process import Hangups

    hangups = Hangups()  # first of all: what follows takes its time
    from server.logs import configure_logs
    from server.settings import read_settings

    settings = read_settings(config, **flags)
    configure_logs(settings.log_level, settings.log_format)

    if settings.workers > 1:
        sys.exit(asyncio.run(_supervise(settings)))

    from server.app import Server
    from server.engine import load_engine
    from server.process import settle

    engine = load_engine(settings)
    settle()
    if not asyncio.run(Server(engine, settings).run(_announce, lambda: hangups.came)):
        os._exit(1)  # a model run that hangs cannot be stopped, and Python would wait for its thread


async def _supervise(settings: "Settings") -> int:
    from server.supervisor import Supervisor

    return await Supervisor(settings).run(announce=_announce)


def _announce(url: str) -> None:
    try:
        _print(url)
    except OSError:  # nobody reads it, and the log has the address too; Python would complain when it flushes at exit
        sys.stdout = None


def _print(url: str) -> None:
    click.echo(f"faqwire is listening on {url}")
    click.echo(f'ask it something, from another terminal:  faqwire ask --url {url} "where is my order"')
