"""What commands print: progress on standard error, results on standard output."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from export.runtime.bi_encoder import BiEncoder
from intents.build import Reporter
from intents.errors import Problem

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line of progress."""
    err.print(text, markup=False)


def report_left_out(problems: Sequence[Problem], most: int = 10) -> None:
    """Name the rows that were left out of a file."""
    for problem in problems[:most]:
        say(f"left out: {problem}")
    if len(problems) > most:
        say(f"left out: {len(problems) - most} further rows of {problems[0].file}")


def bar() -> Progress:
    """A progress bar for texts, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


class ConsoleReporter(Reporter):
    """Draws how a build goes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def step(self, what: str) -> None:
        """See `Reporter.step`."""
        say(what)

    def encoding(self, total: int) -> Callable[[int], None]:
        """See `Reporter.encoding`."""
        task = self._progress.add_task("encoding", total=total)
        return lambda count: self._progress.advance(task, count)


def open_encoder(model: Path, *, threads: int) -> BiEncoder:
    """The bundle's bi-encoder in fp32 on the CPU: what indexes are encoded with."""
    from export.bundle import open_bundle
    from export.runtime.session import CPU, Device

    return BiEncoder(open_bundle(model, kind="bi-encoder"), "fp32", Device(CPU), threads=threads)
