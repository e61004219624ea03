"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from export.runtime.choices import Provider, VariantChoice

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

config = click.option("--config", type=PATH, help="Settings file (TOML); faqwire.toml is read where there is one.")
model = click.option("--model", type=PATH, help="Folder of the bi-encoder's bundle.  [default: var/model]")
index = click.option("--index", type=PATH, help="Folder of the FAQ's index.  [default: var/index]")
cross_encoder = click.option(
    "--cross-encoder", type=PATH, help="Folder of the cross-encoder's bundle.  [default: none]"
)
provider = click.option("--provider", type=click.Choice(get_args(Provider)), help="Where models run.")
variant = click.option("--variant", type=click.Choice(get_args(VariantChoice)), help="Precision to run.")
search = click.option("--search", type=click.Choice(["annoy", "exact"]), help="How phrasings are searched.")

SAMPLES = Path(__file__).parents[2] / "intents" / "samples"
SAMPLE_FAQ = SAMPLES / "shop.yaml"
SAMPLE_MESSAGES = SAMPLES / "shop_messages.csv"


def build_options(function: F) -> F:
    """The choices that a build leaves to the operator."""
    function = click.option(
        "--target-precision",
        type=click.FloatRange(0.5, 0.999),
        default=0.90,
        show_default=True,
        help="Share of answered messages that shall be right.",
    )(function)
    return click.option(
        "--out-of-scope-share",
        type=click.FloatRange(0.01, 0.95),
        default=0.30,
        show_default=True,
        help="Expected share of messages that the FAQ does not answer.",
    )(function)
