"""`faqwire export`: a model becomes a bundle."""

from pathlib import Path
from typing import get_args

import click

from export.bundle import Variant
from server.cli.options import PATH


def _variants(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Variant, ...]:
    del ctx
    names = tuple(name.strip() for name in value.split(","))
    unknown = [name for name in names if name not in get_args(Variant)]
    if unknown:
        known = ", ".join(get_args(Variant))
        raise click.BadParameter(f"{unknown[0]!r} is not a variant; they are {known}", param=param)
    return names  # type: ignore[return-value]  # checked above


@click.command
@click.argument("model", required=False)
@click.option("-o", "--output", type=PATH, default=Path("var/model"), show_default=True, help="Folder of the bundle.")
@click.option("--variants", callback=_variants, default="fp32,int8,fp16", show_default=True, help="Precisions to make.")
@click.option("--max-tokens", type=click.IntRange(8), help="Cut inputs to this many tokens.  [default: the model's]")
@click.option("--prefix", help="Put before every text.  [default: the model's query prompt, if it has one]")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option("--force", is_flag=True, help="Export even what is up to date.")
def command(
    model: str | None,
    output: Path,
    variants: tuple[Variant, ...],
    max_tokens: int | None,
    prefix: str | None,
    revision: str | None,
    *,
    force: bool,
) -> None:
    """Make a bundle of MODEL: a Hugging Face id or a local folder, or nothing for the default bi-encoder.

    A sequence-classification model with one logit becomes a cross-encoder, everything else a bi-encoder. Each
    precision is compared with the torch model, and one that disagrees fails the export.
    """
    from export.convert import export_model
    from server.cli.console import out, say

    exported = export_model(
        model,
        output,
        variants=variants,
        max_tokens=max_tokens,
        prefix=prefix,
        revision=revision,
        force=force,
        report=say,
    )
    manifest = exported.bundle.manifest
    if exported.up_to_date:
        say(f"{output} is up to date: {manifest.source.model}, {', '.join(manifest.variants)}")
        return
    from rich.table import Table

    table = Table("variant", "MB", "agreement, mean", "min", "alone and in a batch", title=f"{manifest.source.model}")
    for name, info in manifest.variants.items():
        size = (output / info.file).stat().st_size / 1e6
        parity = info.parity
        table.add_row(name, f"{size:.1f}", f"{parity.mean:.5f}", f"{parity.min:.5f}", f"{parity.batch_min:.5f}")
    out.print(table)
    out.print(f"{manifest.kind} in {output}", markup=False)
