"""The `faqwire` command: the composition root.

Each subcommand is a module of its own that is imported when it is called, so that `faqwire --help` answers at once and
serving never meets torch.
"""

import importlib
import signal
import sys
from types import FrameType

import click

from export.errors import FaqwireError

# What `faqwire --help` lists, without importing any of it.
_COMMANDS = {
    "ask": "Ask a running server, or one started for the occasion.",
    "build": "Build the index of a FAQ.",
    "doctor": "Say what is here, what is wrong, and what to do.",
    "eval": "Measure how good the answers are.",
    "export": "Make a model bundle.",
    "index": "List, choose and remove versions of an index.",
    "journal": "Count, export and erase what was asked.",
    "schema": "Write the protocol's AsyncAPI and JSON Schema.",
    "serve": "Answer messages over websockets.",
    "train": "Train a cross-encoder on FAQs.",
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"server.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="faqwire")
def group() -> None:
    """A real-time FAQ chatbot backend.

    A first run: `faqwire export` makes the model, `faqwire build` the index, `faqwire serve` answers.
    """


def main() -> None:
    """Run the command; every failure that a user can mend is one sentence and exit status 1."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        group(standalone_mode=False)
    except FaqwireError as exc:
        click.echo(f"faqwire: {exc}", err=True)
        sys.exit(1)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("faqwire: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has left; Python would complain once more when it flushes at exit.
        sys.stdout = None
        sys.exit(1)
    except OSError as exc:  # a name that is too long, a folder without permission, a full disk
        place = f"{exc.filename}: " if exc.filename else ""
        click.echo(f"faqwire: {place}{exc.strerror or exc}", err=True)
        sys.exit(1)


def _terminate(number: int, frame: FrameType | None) -> None:
    # As an exception, so that half-made folders are removed on the way out.
    del number, frame
    raise SystemExit(143)
