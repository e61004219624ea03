"""An evaluation as one HTML file: figures, plots and confused pairs, with nothing to be loaded from elsewhere.

Texts of FAQs and messages are anybody's: Jinja escapes all that is not a plot, and plots have no such text.
"""

import importlib.util
import os
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import FaqwireError

if TYPE_CHECKING:
    from server.cli.findings import Findings


def require_report(path: Path) -> None:
    """Find out before the work, and not after it, that the report cannot be written.

    Raises:
        FaqwireError: matplotlib or Jinja is not installed, or the place is none for a file.
    """
    if any(importlib.util.find_spec(module) is None for module in ("jinja2", "matplotlib")):
        raise FaqwireError("a report needs matplotlib and Jinja; install `faqwire[build]`")
    if path.is_dir():
        raise FaqwireError(f"{path} is a folder; name a file for the report")
    if not path.parent.is_dir():
        raise FaqwireError(f"{path} cannot be written: there is no folder {path.parent}")


def write_report(path: Path, findings: "Findings") -> None:
    """Write the report, whole or not at all."""
    page = render_report(findings)
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        mask = os.umask(0)
        os.umask(mask)
        Path(draft).chmod(0o666 & ~mask)  # mkstemp makes it private
        Path(draft).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(draft).unlink()
        raise


def render_report(findings: "Findings") -> str:
    """The report's HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from intents.confusions import confusions
    from server.cli.report.plots import plots_of

    templates = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    confused = confusions(findings.trial.served.judged)
    return environment.get_template("page.html.jinja").render(
        findings=findings,
        written=datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        plots=[(plot, Markup(plot.svg)) for plot in plots_of(findings)],  # noqa: S704 matplotlib's, without foreign text
        confused=confused,
    )
