"""What `faqwire eval` found, as JSON, as a table, and as an exit status."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.table import Column, Table

from export.errors import FaqwireError
from intents.bootstrap import Difference
from intents.comparison import Comparison, Versus
from intents.figures import Report
from intents.systems import TITLES, System, Trial

Row = tuple[str, str, str]

# What each figure of `Report` is called, and what it is a figure of.
OURS, OTHERS, EVERY = "in-scope messages", "out-of-scope messages", "messages"
ROWS: tuple[Row, ...] = (
    ("accuracy@1", "accuracy_at_1", OURS),
    ("accuracy@3", "accuracy_at_3", OURS),
    ("mean reciprocal rank", "mrr", OURS),
    ("AUROC", "auroc", EVERY),
    ("answered (coverage)", "answered", OURS),
    ("precision", "precision", "answered messages"),
    ("reweighted precision", "reweighted_precision", "answered messages"),
    ("clarified", "clarified", OURS),
    ("clarified rightly", "clarify_hit", "clarified messages"),
    ("out-of-scope recall", "out_of_scope_recall", OTHERS),
    ("overall accuracy", "overall_accuracy", EVERY),
    ("Matthews correlation", "mcc", EVERY),
    ("calibration error", "calibration_error", EVERY),
    ("reweighted error", "reweighted_calibration_error", EVERY),
    ("risk and coverage", "risk_coverage_area", EVERY),
    ("agrees with exact scan", "search_agreement", "searched messages"),
    ("share confirmed", "share_confirmed", EVERY),
    ("pairs a message", "pairs", EVERY),
    ("model ms a message", "milliseconds", EVERY),
)
LABELS = {
    "accuracy@1": "accuracy@1",
    "auroc": "AUROC",
    "overall_accuracy": "overall accuracy",
    "precision": "precision",
}


@dataclass(frozen=True)
class Findings:
    """Everything that one evaluation found.

    Attributes:
        title: what was evaluated, and with which model.
        method: how, as JSON has it.
        notes: how, in sentences.
        comparison: the systems side by side.
        versus: another index beside this one, or None.
        trial: the messages of all folds or draws.
        questions: of the entries, by their ids.
        facts: what else JSON has.
    """

    title: str
    method: Mapping[str, Any]
    notes: tuple[str, ...]
    comparison: Comparison
    versus: Versus | None
    trial: Trial
    questions: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def served_title(self) -> str:
        """What a server of this index would be."""
        return TITLES["cascade" if "cascade" in self.comparison.reports else "alone"]

    def as_json(self) -> str:
        """All figures; at the top those of the bi-encoder alone."""
        comparison: dict[str, Any] = msgspec.to_builtins(self.comparison)
        reports = comparison.pop("reports")
        facts = {
            **reports.pop("alone"),
            **{system: reports.get(system) for system in TITLES if system != "alone"},
            **comparison,
            "against": None,
            "method": self.method,
            **self.facts,
        }
        if self.versus is not None:
            facts["against"] = {**msgspec.to_builtins(self.versus), "regressions": list(self.versus.regressions)}
        return msgspec.json.format(msgspec.json.encode(facts), indent=2).decode()

    def as_table(self) -> Table:
        """All figures, a column for each system."""
        reports = self.reports()
        first = next(iter(reports.values()))
        sizes = f"{first.in_scope:,} {OURS}, {first.out_of_scope:,} {OTHERS}"
        table = Table(Column("figure", no_wrap=True), *reports, title=self.title, caption=sizes)
        for name, *values, _ in self.rows():
            table.add_row(name, *values)
        statuses = dict.fromkeys(status for report in reports.values() for status in report.confirmations)
        for status in statuses if len(reports) > 1 else ():
            table.add_row(status, *(str(report.confirmations.get(status, 0)) for report in reports.values()))
        return table

    def reports(self) -> dict[str, Report]:
        """The figures of each system, and of the other index, by their titles."""
        reports = {TITLES[system]: report for system, report in self.comparison.reports.items()}
        return reports if self.versus is None else {**reports, self.versus.against: self.versus.report}

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The name of each figure, its value for each of `reports`, and of how many of what it is."""
        first = next(iter(self.comparison.reports.values()))
        counts = {EVERY: first.messages, OURS: first.in_scope, OTHERS: first.out_of_scope}
        for name, field, of in ROWS:
            values = [self._value(system, field) for system in self.comparison.reports]
            if self.versus is not None:
                values.append(_shown(getattr(self.versus.report, field), field))
            yield name, *values, f"{counts[of]:,} {of}" if of in counts else of

    def _value(self, system: System, field: str) -> str:
        shown = _shown(getattr(self.comparison.reports[system], field), field)
        names = dict(zip(Report.__struct_fields__, Report.__struct_encode_fields__, strict=True))
        deviation = self.comparison.deviations.get(system, {}).get(names[field])
        return shown if deviation is None else f"{shown} ± {_shown(deviation, field)}"

    def lines(self) -> Iterator[str]:
        """What stands below the table: what differs, and how all of it was found out."""
        comparison = self.comparison
        for name, one in comparison.differences.items():
            if one is not None:
                yield f"cascade over bi-encoder alone, {LABELS[name]}: {_interval(one)}"
        for name, share in comparison.kept_gain.items():
            if share is not None:
                yield f"of what full confirmation gains in {LABELS[name]}, the cascade keeps {share:.0%}"
        if comparison.depths:
            depths = [
                f"{d.candidates}: {_shown(d.accuracy_at_1)} in {d.milliseconds:.2f} ms" for d in comparison.depths
            ]
            yield f"accuracy@1 of the cascade by candidates read: {', '.join(depths)}"
        if self.versus is not None:
            for name, one in self.versus.differences.items():
                if one is not None:
                    yield f"over {self.versus.against}, {LABELS[name]}: {_interval(one)}"
        yield from self.notes

    def refuse_regression(self) -> None:
        """Fail where this index is worse than the other one.

        Raises:
            FaqwireError: it is, and more so than chance explains; the sentence says in what.
        """
        if self.versus is not None and self.versus.regressions:
            worse = ", and ".join(f"{LABELS[name]} ({_interval(one)})" for name, one in self.versus.regressions.items())
            raise FaqwireError(f"this is worse than {self.versus.against} in {worse}")


def _shown(value: float | None, field: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if field in {"pairs", "milliseconds"} else f"{value:.4f}"


def _interval(one: Difference) -> str:
    return f"{one.difference:+.4f}, 95 % interval {one.low:+.4f} to {one.high:+.4f}"
