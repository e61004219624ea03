"""`faqwire journal`: what was asked, counted, exported and erased."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from server.cli import options

if TYPE_CHECKING:
    from server.journal.reading import Selection
    from server.journal.store import Store

F = TypeVar("F", bound=Callable[..., Any])

DAY = click.DateTime(["%Y-%m-%d"])
# What SQLite keeps beside its file.
_BESIDE = ("-wal", "-shm", "-journal")
# What a spreadsheet takes for the beginning of a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _common(function: F) -> F:
    """What all of these commands are told: which journal, and which days."""
    function = options.config(function)
    function = click.option("--journal", help="File of the journal, or a postgresql:// URL.  [default: the setting]")(
        function
    )
    function = click.option("--to", "last", type=DAY, help="Last day, in UTC.")(function)
    return click.option("--from", "first", type=DAY, help="First day, in UTC.")(function)


@click.group
def command() -> None:
    """Count, export and erase what was asked."""


@command.command("count")
@click.option("--by-day", is_flag=True, help="A row for each day.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each row.")
@_common
def count_(
    config: Path | None,
    journal: str | None,
    first: datetime | None,
    last: datetime | None,
    *,
    by_day: bool,
    as_json: bool,
) -> None:
    """Count asks by decision, and feedback."""
    from intents.decide import DecisionKind
    from server.cli.console import out
    from server.journal.reading import count
    from server.telemetry import values_of

    with _opened(config, journal) as store:
        rows = count(store, _selection(first, last), by_day=by_day)
    kinds = values_of(DecisionKind)
    columns = ["day", "asks", *kinds, "helpful", "unhelpful"]
    cells = [
        [row.day or "all", row.asks, *(row.decisions.get(kind, 0) for kind in kinds), row.helpful, row.unhelpful]
        for row in rows
    ]
    if as_json:
        for line in cells:
            click.echo(json.dumps(dict(zip(columns, line, strict=True))))
        return
    from rich.table import Table

    table = Table(*columns, box=None)  # it fits into 80 columns so
    for line in cells:
        table.add_row(*map(str, line))
    out.print(table)


@command.command("export")
@click.argument("what", type=click.Choice(["asks", "feedback"]), default="asks")
@click.option("--format", "style", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True, help="How.")
@click.option("-o", "--output", default="-", help="File to write.  [default: standard output]")
@_common
def export(
    config: Path | None,
    journal: str | None,
    first: datetime | None,
    last: datetime | None,
    what: str,
    style: str,
    output: str,
) -> None:
    """Write asks with their feedback, or feedback alone, to standard output or a file, in the order they came.

    In CSV a text that a spreadsheet would take for a formula begins with an apostrophe; JSON lines are exact.
    """
    from server.journal.reading import columns_of, read
    from server.journal.schema import asks, feedback

    table, selection = asks if what == "asks" else feedback, _selection(first, last)
    columns = columns_of(table)
    with _opened(config, journal) as store, _writing(output, store) as file:
        rows = ({name: _written(row[name]) for name in columns} for row in read(store, table, selection))
        if style == "csv":
            lines = csv.writer(file)
            lines.writerow(columns)
            lines.writerows([_cell(value) for value in row.values()] for row in rows)
        else:
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


@command.command("erase")
@click.option("--visitor", help="Erase what this visitor asked and said.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@_common
def erase_(
    config: Path | None,
    journal: str | None,
    first: datetime | None,
    last: datetime | None,
    visitor: str | None,
    *,
    yes: bool,
) -> None:
    """Erase a visitor's records, those of some days, or a visitor's of some days, with nothing left in the file."""
    from server.cli.console import say
    from server.journal.erasing import count_selected, erase

    selection = _selection(first, last, visitor)
    if not selection:
        raise click.UsageError("name what to erase: --visitor, --from or --to")
    with _opened(config, journal) as store:
        if not yes:
            asked, said = count_selected(store, selection)
            click.confirm(f"Erase {asked} asks and {said} feedbacks from {store.place}?", abort=True, err=True)
        asked, said = erase(store, selection)
        say(f"{store.place}: erased {asked} asks and {said} feedbacks")


def _selection(first: datetime | None, last: datetime | None, visitor: str | None = None) -> "Selection":
    from server.journal.reading import Selection

    if first is not None and last is not None and last < first:
        raise click.UsageError("--to is before --from")
    return Selection(None if first is None else first.date(), None if last is None else last.date(), visitor)


@contextmanager
def _opened(config: Path | None, journal: str | None) -> Iterator["Store"]:
    """The journal that was named, or that the settings name; it has to be there."""
    from server.errors import JournalError
    from server.settings import read_settings

    settings = read_settings(config, journal=journal)
    if settings.journal is None:
        raise JournalError("no journal is set; name one with --journal, or with `journal` in the settings")
    from server.journal.database import place_of
    from server.journal.store import Store

    place = place_of(settings.journal)
    if place.file is not None:
        made = "it is made when a server with this setting starts"
        if not place.file.exists():
            raise JournalError(f"journal {place} does not exist; {made}")
        if not place.file.is_file():
            raise JournalError(f"journal {place} is not a file; name the journal's")
        if not place.file.stat().st_size:
            raise JournalError(f"journal {place} is empty, and so no journal; {made}")
    store = Store(place)
    store.open()
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _writing(output: str, store: "Store") -> Iterator[IO[str]]:
    """The file to write, which appears when it is whole; standard output and devices are written as they are."""
    from server.errors import JournalError

    own, target = store.place.file, Path(output)
    parts = () if own is None else (own, *(own.with_name(own.name + ending) for ending in _BESIDE))
    if target.exists() and any(part.exists() and part.samefile(target) for part in parts):
        raise JournalError(f"{output} is the journal itself; name another file to write")
    to_file = output != "-" and (target.is_file() or not target.exists())
    with click.open_file(output, "w", encoding="utf-8", atomic=to_file) as file:
        yield file


def _written(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value
