"""`faqwire eval`: how good the answers are."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli import options
from server.cli.options import PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from intents.build import Options
    from intents.confirm import Pair
    from intents.entries import Faq
    from intents.evaluate import Report
    from intents.labelled import Labelled
    from intents.search import Floats
    from server.settings import Settings


@click.command
@click.option("--faq", type=PATH, help="FAQ (YAML, folder, or CSV of `text,intent`).  [default: the sample shop's]")
@click.option("--messages", type=PATH, help="CSV of `text,expected`; empty or `oos` is out of scope.")
@options.model
@options.cross_encoder
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

    Everything is chosen from the FAQ alone; the messages are only counted. With a cross-encoder, the bi-encoder alone
    and the cascade of both stand side by side.
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
    chosen = Options(
        target_precision=target_precision, out_of_scope_share=out_of_scope_share, candidates=settings.candidates
    )
    alone, cascade, setting = _evaluate(loaded.faq, labelled, settings, chosen)
    if as_json:
        import msgspec

        files = {"faq": str(faq), "messages_file": str(messages)}
        facts = {**msgspec.to_builtins(alone), "cascade": msgspec.to_builtins(cascade), **files, **setting}
        click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())
    else:
        out.print(_table(alone, cascade, f"{faq.name}, {setting['model']} ({setting['variant']})"))


def _evaluate(
    faq: "Faq", labelled: "list[Labelled]", settings: "Settings", chosen: "Options"
) -> "tuple[Report, Report | None, dict[str, Any]]":
    """The figures of the bi-encoder alone and of the cascade, where there is one, and what they were measured with."""
    import msgspec

    from export.bundle import open_bundle
    from export.runtime.bi_encoder import BiEncoder
    from export.runtime.cross_encoder import CrossEncoder
    from export.runtime.session import choose_variant
    from intents.build import build_index
    from intents.evaluate import judge, look_up, summarise
    from intents.index import open_index
    from intents.store import current_folder
    from server.cli.console import ConsoleReporter, bar, open_encoder, say
    from server.cli.cross_encoder import find_cross_encoder, open_cross_encoder
    from server.engine import device_of, usable_cores

    bundle, cross = open_bundle(settings.model, kind="bi-encoder"), find_cross_encoder(settings)
    device, threads = device_of(settings), usable_cores()
    variant = choose_variant(bundle, device, settings.variant)
    today = datetime.now().astimezone().date()
    cascade, cross_variant = None, None
    with tempfile.TemporaryDirectory(prefix="faqwire-eval-") as aside, bar() as progress:
        root, reporter = Path(aside) / "index", ConsoleReporter(progress)
        manifest = build_index(
            faq,
            open_encoder(settings.model, threads=threads),
            root,
            chosen,
            now=datetime.now(UTC),
            reporter=reporter,
            cross_encoder=open_cross_encoder(cross, threads=threads),
        ).manifest
        fingerprint = bundle.manifest.fingerprint
        index = open_index(current_folder(root), root, model_fingerprint=fingerprint, model_folder=settings.model)
        say(f"asking {len(labelled):,} messages")
        serving = BiEncoder(bundle, variant, device, threads=threads)
        looked = look_up(labelled, index, index.search(settings.search), serving, reporter.encoding(len(labelled)))
        alone = summarise(judge(looked, index, today), index)
        if cross is not None:
            cross_variant = choose_variant(cross, device, settings.variant)
            confirming = CrossEncoder(cross, cross_variant, device, threads=threads)

            def score(pairs: "Sequence[Pair]") -> "Floats":
                say(f"reading {len(pairs):,} pairs with the cross-encoder")
                return confirming.score(pairs, progress=reporter.encoding(len(pairs)))

            cascade = summarise(judge(looked, index, today, score), index)
    return (
        alone,
        cascade,
        {
            "model": bundle.manifest.source.model,
            "variant": variant,
            "cross_encoder_variant": cross_variant,
            "provider": device.provider,
            "search": settings.search,
            "plan": msgspec.to_builtins(manifest.plan),
            "calibration": msgspec.to_builtins(manifest.calibration),
            "confirmer": msgspec.to_builtins(manifest.confirmer),
            "confirmed": msgspec.to_builtins(manifest.confirmed),
        },
    )


def _table(alone: "Report", cascade: "Report | None", title: str) -> Any:
    from rich.table import Table

    reports = [alone] if cascade is None else [alone, cascade]
    names = ["value"] if cascade is None else ["bi-encoder alone", "cascade"]
    table = Table("figure", *names, "of", title=title)
    every = f"{alone.messages:,} messages"
    ours, others = f"{alone.in_scope:,} in-scope messages", f"{alone.out_of_scope:,} out-of-scope messages"
    rows = (
        ("accuracy@1", "accuracy_at_1", ours),
        ("accuracy@3", "accuracy_at_3", ours),
        ("mean reciprocal rank", "mrr", ours),
        ("answered", "answered", ours),
        ("precision", "precision", "answered messages"),
        ("clarified", "clarified", ours),
        ("clarified with the right option", "clarify_hit", "clarified messages"),
        ("out-of-scope recall", "out_of_scope_recall", others),
        ("same top entry as an exact scan", "search_agreement", "searched messages"),
        ("share confirmed", "share_confirmed", every),
    )
    for figure, name, of in rows:
        values = [getattr(report, name) for report in reports]
        table.add_row(figure, *("-" if value is None else f"{value:.4f}" for value in values), of)
    for status in cascade.confirmations if cascade is not None else ():
        counts = [report.confirmations.get(status, 0) for report in reports]
        table.add_row(f"confirmation: {status}", *map(str, counts), every)
    return table
