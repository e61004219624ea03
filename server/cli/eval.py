"""`faqwire eval`: how good the answers are."""

import tempfile
from pathlib import Path

import click
from click.core import ParameterSource

from server.cli import options
from server.cli.options import PATH

# What makes no sense together, and what one makes no sense without.
_CLASHES = (
    *(("index", other) for other in ("faq", "folds", "shots", "target_precision", "out_of_scope_share")),
    *(("folds", other) for other in ("messages", "shots", "against")),
    ("shots", "against"),
)
_NEEDS = (("index", "messages"), ("draws", "shots"))


@click.command
@click.option("--faq", type=PATH, help="FAQ (YAML, folder, or CSV of `text,intent`).  [default: the sample shop's]")
@click.option("--messages", type=PATH, help="CSV of `text,expected`; empty or `oos` is out of scope.")
@click.option("--index", type=PATH, help="Folder of an index to evaluate as it is, instead of building the FAQ's.")
@click.option("--against", type=PATH, help="Folder of an index to compare with; exit status 1 says that it is better.")
@click.option("--folds", type=click.IntRange(2), help="Without messages: how many parts of the FAQ.  [default: 5]")
@click.option("--shots", type=click.IntRange(1), help="Build with so many phrasings of each entry, drawn at random.")
@click.option("--draws", type=click.IntRange(1), default=5, show_default=True, help="How often to draw them.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of all that is drawn at random.")
@options.model
@options.cross_encoder
@options.provider
@options.variant
@options.search
@options.config
@options.build_options
@click.option("--report", type=PATH, help="HTML file to write, with plots and what is confused.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    faq: Path | None,
    messages: Path | None,
    index: Path | None,
    against: Path | None,
    folds: int | None,
    shots: int | None,
    draws: int,
    seed: int,
    config: Path | None,
    target_precision: float,
    out_of_scope_share: float,
    report: Path | None,
    *,
    as_json: bool,
    **flags: object,
) -> None:
    """Build a FAQ's index aside, put labelled messages to it, and report how they fared.

    Everything is chosen from the FAQ alone; the messages are only counted. Without messages, the FAQ's own phrasings
    are asked of indexes that lack them. With a cross-encoder, the bi-encoder alone, the confirmer alone, the cascade
    of both, and full confirmation stand side by side.
    """
    from intents.build import Options
    from server.cli.console import out, say
    from server.cli.evaluation import Wanted, evaluate
    from server.cli.report import require_report, write_report
    from server.settings import read_settings

    ctx = click.get_current_context()
    _check({name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE})
    settings = read_settings(config, **flags)
    if faq is None and messages is None:
        faq, messages = options.SAMPLE_FAQ, None if folds else options.SAMPLE_MESSAGES
        say(f"no FAQ was named: taking the sample shop's{', and its held-out messages' if messages else ''}")
    if messages is None and (shots or against):
        raise click.UsageError("--shots and --against need --messages")
    if faq is None and index is None:
        raise click.UsageError("--messages need the --faq or the --index that they are put to")
    if report is not None:
        require_report(report)
    chosen = Options(
        target_precision=target_precision, out_of_scope_share=out_of_scope_share, candidates=settings.candidates
    )
    wanted = Wanted(faq, messages, index, against, folds or 5, shots, draws, seed)
    with tempfile.TemporaryDirectory(prefix="faqwire-eval-") as aside:
        evaluation = evaluate(wanted, settings, chosen, Path(aside) / "index")
    if report is not None:
        write_report(report, evaluation)
        say(f"{report} is written")
    if as_json:
        click.echo(evaluation.as_json())
    else:
        out.print(evaluation.as_table())
        for line in evaluation.lines():
            out.print(line, markup=False)
    evaluation.refuse_regression()


def _check(given: set[str]) -> None:
    for one, other in _CLASHES:
        if {one, other} <= given:
            raise click.UsageError(f"{_flag(one)} and {_flag(other)} exclude each other")
    for one, other in _NEEDS:
        if one in given and other not in given:
            raise click.UsageError(f"{_flag(one)} needs {_flag(other)}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
