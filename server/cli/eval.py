"""`faqwire eval`: how good the answers are."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli import options
from server.cli.options import PATH

if TYPE_CHECKING:
    from intents.build import Options
    from intents.entries import Faq
    from intents.evaluate import Report
    from intents.labelled import Labelled
    from server.settings import Settings


@click.command
@click.option("--faq", type=PATH, help="FAQ (YAML, folder, or CSV of `text,intent`).  [default: the sample shop's]")
@click.option("--messages", type=PATH, help="CSV of `text,expected`; empty or `oos` is out of scope.")
@options.model
@options.provider
@options.variant
@options.search
@options.config
@options.build_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    faq: Path | None,
    messages: Path | None,
    config: Path | None,
    target_precision: float,
    out_of_scope_share: float,
    *,
    as_json: bool,
    **flags: object,
) -> None:
    """Build a FAQ's index aside, put labelled messages to it, and report how they fared.

    Everything is chosen from the FAQ alone; the messages are only counted.
    """
    from intents.build import Options
    from intents.formats import load_faq
    from intents.labelled import read_labelled
    from server.cli.console import out, report_left_out, say
    from server.settings import read_settings

    settings = read_settings(config, **flags)
    if faq is None and messages is None:
        faq, messages = options.SAMPLE_FAQ, options.SAMPLE_MESSAGES
        say("no FAQ was named: taking the sample shop's, and its held-out messages")
    if faq is None or messages is None:
        raise click.UsageError("--faq and --messages go together; name both, or neither for the sample")
    loaded = load_faq(faq)
    report_left_out(loaded.left_out)
    labelled, left_out = read_labelled(messages, {entry.id for entry in loaded.faq.entries if entry.enabled})
    report_left_out(left_out)
    chosen = Options(target_precision=target_precision, out_of_scope_share=out_of_scope_share)
    report, setting = _evaluate(loaded.faq, labelled, settings, chosen)
    if as_json:
        import msgspec

        facts = {**msgspec.to_builtins(report), "faq": str(faq), "messages_file": str(messages), **setting}
        click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())
    else:
        out.print(_table(report, f"{faq.name}, {setting['model']} ({setting['variant']})"))


def _evaluate(
    faq: "Faq", labelled: "list[Labelled]", settings: "Settings", chosen: "Options"
) -> "tuple[Report, dict[str, Any]]":
    """The figures, and what they were measured with: model, variant, provider, search, plan, calibration."""
    import msgspec

    from export.bundle import open_bundle
    from export.runtime.bi_encoder import BiEncoder
    from export.runtime.session import choose_variant, find_device
    from intents.build import build_index
    from intents.evaluate import judge, summarise
    from intents.index import open_index
    from intents.store import current_folder
    from server.cli.console import ConsoleReporter, bar, open_encoder, say
    from server.engine import usable_cores

    bundle = open_bundle(settings.model, kind="bi-encoder")
    device = find_device(settings.provider)
    variant = choose_variant(bundle, device, settings.variant)
    with tempfile.TemporaryDirectory(prefix="faqwire-eval-") as aside, bar() as progress:
        root, reporter = Path(aside) / "index", ConsoleReporter(progress)
        encoder = open_encoder(settings.model, threads=usable_cores())
        manifest = build_index(faq, encoder, root, chosen, now=datetime.now(UTC), reporter=reporter).manifest
        index = open_index(
            current_folder(root),
            root,
            model_fingerprint=bundle.manifest.fingerprint,
            model_folder=settings.model,
        )
        say(f"asking {len(labelled):,} messages")
        serving = BiEncoder(bundle, variant, device, threads=usable_cores())
        today = datetime.now().astimezone().date()
        judged = judge(labelled, index, index.search(settings.search), serving, today, reporter.encoding(len(labelled)))
        report = summarise(judged, index)
    return report, {
        "model": bundle.manifest.source.model,
        "variant": variant,
        "provider": device.provider,
        "search": settings.search,
        "plan": msgspec.to_builtins(manifest.plan),
        "calibration": msgspec.to_builtins(manifest.calibration),
    }


def _table(report: "Report", title: str) -> Any:
    from rich.table import Table

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    table = Table("figure", "value", "of", title=title)
    ours, others = f"{report.in_scope:,} in-scope messages", f"{report.out_of_scope:,} out-of-scope messages"
    table.add_row("accuracy@1", share(report.accuracy_at_1), ours)
    table.add_row("accuracy@3", share(report.accuracy_at_3), ours)
    table.add_row("mean reciprocal rank", share(report.mrr), ours)
    table.add_row("answered", share(report.answered), ours)
    table.add_row("precision", share(report.precision), "answered messages")
    table.add_row("clarified", share(report.clarified), ours)
    table.add_row("clarified with the right option", share(report.clarify_hit), "clarified messages")
    table.add_row("out-of-scope recall", share(report.out_of_scope_recall), others)
    table.add_row("same top entry as an exact scan", share(report.search_agreement), "all messages")
    return table
