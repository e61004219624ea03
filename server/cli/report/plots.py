"""The report's plots, as SVG that takes its colour of text from the page, light or dark.

Drawn with matplotlib's own objects: pyplot's figures are global, and would outlive the page.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from intents.calibrate import Doubles
from intents.figures import columns_of, risk_coverage
from intents.systems import TITLES, System
from server.cli.findings import Findings

BINS = 15
# Okabe and Ito's colours, which stay apart for the colour-blind, on white and on black.
_COLOURS: dict[System, str] = {
    "alone": "#0072b2",
    "confirmer_alone": "#e69f00",
    "cascade": "#009e73",
    "full_confirmation": "#cc79a7",
}
_INK = "#010203"  # stands for the page's own colour of text, and is no colour of a plot
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "faqwire",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        title: its heading.
        caption: what it shows, in a sentence or two.
        svg: an `svg` element.
    """

    title: str
    caption: str
    svg: str


def plots_of(findings: Findings) -> list[Plot]:
    """All plots of an evaluation."""
    return [
        _plot(
            "Risk and coverage",
            "Share of wrong ones among the most confident messages, over how many these are; lower is better. A dot is "
            "the chosen point: what is answered.",
            lambda axes: _draw_risk(axes, findings),
        ),
        _plot(
            "Reliability",
            f"Share of messages whose first candidate is right, over confidence, in {BINS} bins of equal mass; on the "
            "diagonal, confidence is what it says.",
            lambda axes: _draw_reliability(axes, findings),
        ),
        _plot(
            "Confidence",
            f"How many messages have which confidence ({findings.served_title}). Those that are right belong "
            "on the right, all others on the left.",
            lambda axes: _draw_histograms(axes, findings),
        ),
        _plot(
            "Quality and latency",
            "Accuracy@1 over the milliseconds that models took for a message; up and to the left is better. The line "
            "is the cascade by how many candidates of a message are read.",
            lambda axes: _draw_latency(axes, findings),
        ),
    ]


def _plot(title: str, caption: str, draw: Callable[[Axes], None]) -> Plot:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        draw(figure.add_subplot())
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Plot(title, caption, _inline(written.getvalue(), title))


def _inline(svg: str, title: str) -> str:
    """An SVG document as an element of a page: without its head, and with ids that no other plot has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    prefix = title.lower().replace(" ", "-")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace(_INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _draw_risk(axes: Axes, findings: Findings) -> None:
    for system, run in findings.trial.runs.items():
        columns = columns_of(run.judged)
        coverage, risk = risk_coverage(columns)
        axes.plot(coverage, risk, color=_COLOURS[system], label=TITLES[system])
        answered = columns.answered.mean()
        if answered:
            wrong = (~columns.right[columns.answered]).mean()
            axes.plot([answered], [wrong], "o", color=_COLOURS[system])
    axes.set(xlabel="share of all messages", ylabel="share of wrong ones among them", xlim=(0, 1.02), ylim=(0, None))
    axes.legend()


def _draw_reliability(axes: Axes, findings: Findings) -> None:
    axes.plot([0, 1], [0, 1], ":", color=_INK)
    for system, run in findings.trial.runs.items():
        if system != "confirmer_alone":  # its logits are no probabilities
            columns = columns_of(run.judged)
            confidence, right = _in_bins(columns.confidence, columns.right.astype(np.float64))
            axes.plot(confidence, right, "o-", color=_COLOURS[system], label=TITLES[system], markersize=4)
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend()


def _in_bins(confidence: Doubles, right: Doubles) -> tuple[list[float], list[float]]:
    """The mean confidence and the share that is right, in bins of equal mass."""
    parts = [part for part in np.array_split(np.argsort(confidence, kind="stable"), BINS) if len(part)]
    return [float(confidence[part].mean()) for part in parts], [float(right[part].mean()) for part in parts]


def _draw_histograms(axes: Axes, findings: Findings) -> None:
    columns = columns_of(findings.trial.served.judged)
    groups = [columns.right, columns.in_scope & ~columns.right, ~columns.in_scope]
    axes.hist(
        [columns.confidence[group] for group in groups],
        bins=np.linspace(0, 1, 21).tolist(),
        stacked=True,
        label=["in scope, right", "in scope, wrong", "out of scope"],
        color=["#0072b2", "#d55e00", "#999999"],
    )
    axes.set(xlabel="confidence", ylabel="messages", xlim=(0, 1))
    axes.legend()


def _draw_latency(axes: Axes, findings: Findings) -> None:
    comparison = findings.comparison
    places = [(d.milliseconds, d.accuracy_at_1) for d in comparison.depths if d.accuracy_at_1 is not None]
    axes.plot([x for x, _ in places], [y for _, y in places], ".-", color=_COLOURS["cascade"], alpha=0.6)
    for number, place in enumerate(places, 1):
        axes.annotate(f"{number}", place, xytext=(0, -12), textcoords="offset points", ha="center")
    for system, report in comparison.reports.items():
        if report.accuracy_at_1 is not None:
            axes.plot([report.milliseconds], [report.accuracy_at_1], "o", color=_COLOURS[system], label=TITLES[system])
    axes.set(xlabel="model milliseconds a message", ylabel="accuracy@1", xlim=(0, None))
    axes.margins(y=0.15)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
