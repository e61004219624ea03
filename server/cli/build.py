"""`faqwire build`: a FAQ becomes an index."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli import options
from server.cli.options import PATH

if TYPE_CHECKING:
    from intents.manifest import Expected, IndexManifest


@click.command
@click.argument("faq", type=PATH, required=False)
@click.option("-o", "--output", type=PATH, help="Folder of the index.  [default: var/index]")
@options.model
@options.cross_encoder
@options.config
@options.build_options
@click.option("--force", is_flag=True, help="Build even what is up to date.")
def command(
    faq: Path | None,
    output: Path | None,
    model: Path | None,
    cross_encoder: Path | None,
    config: Path | None,
    target_precision: float,
    out_of_scope_share: float,
    *,
    force: bool,
) -> None:
    """Build the index of FAQ (a YAML file, a folder of them, or a CSV of `text,intent`) and make it current.

    Without FAQ it is the sample shop's. Only texts that are new are encoded. With a cross-encoder it is also computed
    which messages it shall confirm, and what then decides.
    """
    from export.bundle import open_bundle
    from intents.build import Options, build_index, up_to_date
    from intents.formats import load_faq
    from server.cli.console import ConsoleReporter, bar, open_encoder, report_left_out, say
    from server.cli.cross_encoder import find_cross_encoder, open_cross_encoder
    from server.cores import usable_cores
    from server.settings import read_settings

    settings = read_settings(config, model=model, index=output, cross_encoder=cross_encoder)
    if faq is None:
        faq = options.SAMPLE_FAQ
        say("no FAQ was named: taking the sample shop's")
    loaded = load_faq(faq)
    report_left_out(loaded.left_out)
    chosen = Options(
        target_precision=target_precision, out_of_scope_share=out_of_scope_share, candidates=settings.candidates
    )
    fingerprint = open_bundle(settings.model, kind="bi-encoder").manifest.fingerprint
    cross = find_cross_encoder(settings)
    manifest = None if force else up_to_date(settings.index, loaded.faq, fingerprint, chosen, cross)
    if manifest is not None:
        say(f"{settings.index} is up to date: version {manifest.version}, {manifest.entries} entries")
        return
    encoder = open_encoder(settings.model, threads=usable_cores())
    with bar() as progress:
        built = build_index(
            loaded.faq,
            encoder,
            settings.index,
            chosen,
            now=datetime.now(UTC),
            reporter=ConsoleReporter(progress),
            cross_encoder=open_cross_encoder(cross, threads=usable_cores()),
        )
    _describe(settings.index, built.manifest)


def _describe(root: Path, manifest: "IndexManifest") -> None:
    from server.cli.console import out

    plan, found = manifest.plan, manifest.calibration
    agreement = (
        f"on {plan.held_out:,} held-out phrasings the top entry is the exact scan's for {plan.agreement:.2%}, "
        f"recall@10 {plan.recall_at_10:.3f}, {plan.microseconds:.0f} µs"
        if plan.held_out
        else "not measured, for there is no phrasing to hold out"
    )
    out.print(
        f"{root}: version {manifest.version}, {manifest.entries} entries, {manifest.items:,} phrasings and answers\n"
        f"search: {plan.trees} trees, search_k {plan.search_k:,}; {agreement}\n"
        f"scores: nearest phrasing, the entry's head with weight {manifest.weights.head:g}, shared words with "
        f"{manifest.weights.lexical:g}\n"
        f"calibration: {found.in_scope:,} held-out phrasings, {found.near:,} without their entry, {found.far:,} "
        f"out-of-scope messages ({found.set_aside} more set aside: this FAQ seems to answer them)\n"
        f"expected, with {found.out_of_scope_share:.0%} of messages out of scope and a target precision of "
        f"{found.target_precision:.2f}: {_expected(found)}",
        markup=False,
    )
    confirmer, confirmed = manifest.confirmer, manifest.confirmed
    if confirmer is not None and confirmed is not None:
        out.print(
            f"confirmer: {confirmer.model}, up to {confirmer.candidates} candidates of a message, pairs of "
            f"{confirmer.pair_tokens} tokens; on {confirmed.messages:,} of these messages, {confirmed.pairs:,} pairs\n"
            f"expected with it: {_expected(confirmed)}; {confirmed.share_confirmed:.1%} of all messages confirmed",
            markup=False,
        )
    for note in (*found.notes, *(confirmed.notes if confirmed is not None else ())):
        out.print(f"note: {note}", markup=False)


def _expected(found: "Expected") -> str:
    precision = "nothing is answered but phrasings" if found.precision is None else f"precision {found.precision:.3f}"
    return (
        f"{precision}; of in-scope messages {found.answered:.1%} answered and {found.clarified:.1%} clarified; of "
        f"out-of-scope messages {found.refused:.1%} recognised; calibration error {found.calibration_error:.3f}"
    )
