"""`faqwire index`: the versions of an index."""

import sys
import time
from pathlib import Path

import click

from server.cli import options


@click.group
def command() -> None:
    """List, choose and remove versions of an index."""


def _root(config: Path | None, index: Path | None) -> Path:
    from server.settings import read_settings

    return read_settings(config, index=index).index


@command.command("list")
@options.index
@options.config
def list_(index: Path | None, config: Path | None) -> None:
    """List the versions, oldest first; the current one has a star, and exit status 1 says that one is damaged."""
    from intents.store import list_versions

    versions = list_versions(_root(config, index))
    for version in versions:
        mark = "*" if version.current else " "
        if version.manifest is None:
            click.echo(f"{mark} {version.name}  {version.problem}")
        else:
            m = version.manifest
            click.echo(f"{mark} {version.name}  {m.created}  {m.entries} entries, {m.items} items, {m.model}")
    if any(version.problem for version in versions):
        sys.exit(1)


@command.command("use")
@click.argument("version")
@options.index
@options.config
def use(version: str, index: Path | None, config: Path | None) -> None:
    """Make VERSION the current one; a server uses it from its next start."""
    from intents.store import use_version
    from server.cli.console import say

    root = _root(config, index)
    use_version(root, version)
    say(f"{root}: version {version} is current")


@command.command("prune")
@click.option("--keep", type=click.IntRange(0), default=3, show_default=True, help="How many of the newest to keep.")
@options.index
@options.config
def prune(keep: int, index: Path | None, config: Path | None) -> None:
    """Remove old versions, and what interrupted builds left a day ago or more; the current one always stays."""
    from export.sealed import STALE_SECONDS
    from intents.store import prune_versions
    from server.cli.console import say

    root = _root(config, index)
    removed = prune_versions(root, keep, stale_before=time.time() - STALE_SECONDS)
    for name in removed:
        say(f"removed {name}")
    if not removed:
        say(f"{root}: nothing to remove")
