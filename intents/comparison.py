"""What an operator needs to choose: the systems' figures side by side, and which differences are more than chance."""

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from intents.bootstrap import Difference, differences
from intents.figures import Figure, Report, accuracy_at_1, auroc, columns_of, overall_accuracy, precision, summarise
from intents.systems import Run, System, Trial

# What is compared between systems, and between two indexes; by their names in `Report`'s JSON.
OF_SYSTEMS: Mapping[str, Figure] = {"accuracy@1": accuracy_at_1, "auroc": auroc}
OF_INDEXES: Mapping[str, Figure] = {
    "accuracy@1": accuracy_at_1,
    "auroc": auroc,
    "overall_accuracy": overall_accuracy,
    "precision": precision,
}
# Those whose loss is a regression.
GUARDED = ("accuracy@1", "overall_accuracy", "precision")


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """The cascade that reads so many candidates of a message at most.

    Attributes:
        candidates: how many.
        accuracy_at_1, milliseconds: see `Report`.
    """

    candidates: int
    accuracy_at_1: float | None = msgspec.field(name="accuracy@1")
    milliseconds: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All systems on the same messages.

    Attributes:
        reports: the figures of each; of several draws their means, and their confirmations added up.
        deviations: of each system's figures, the standard deviation over draws; empty where there is one draw.
        differences: of the cascade from the bi-encoder alone, by figure; empty where there is no cascade.
        kept_gain: which share of what full confirmation gains over the bi-encoder alone the cascade keeps, by figure;
            None where it gains nothing.
        depths: the cascade by how many candidates it reads.
    """

    reports: dict[System, Report]
    deviations: dict[System, dict[str, float]]
    differences: dict[str, Difference | None]
    kept_gain: dict[str, float | None]
    depths: list[Depth]


class Versus(msgspec.Struct, frozen=True, kw_only=True):
    """An index beside another one.

    Attributes:
        against: the other one's folder.
        report: the other one's figures, as it would serve.
        differences: how much higher the figures of the one that is evaluated are.
    """

    against: str
    report: Report
    differences: dict[str, Difference | None]

    @property
    def regressions(self) -> dict[str, Difference]:
        """What became worse, and more so than chance explains."""
        found = {name: self.differences.get(name) for name in GUARDED}
        return {name: one for name, one in found.items() if one is not None and one.is_loss}


def compare(trials: Sequence[Trial], share: float, *, seed: int) -> Comparison:
    """Compare systems.

    Args:
        trials: one for each draw, all with the same messages in the same order.
        share: of out-of-scope messages that calibration assumed.
        seed: of the resampling.
    """
    systems = [system for system in trials[0].runs if all(system in trial.runs for trial in trials)]
    each = {system: [summarise(trial.runs[system], share) for trial in trials] for system in systems}
    reports = {system: mean_of(drawn) for system, drawn in each.items()}
    cascaded = "cascade" in reports
    return Comparison(
        reports=reports,
        deviations={system: _deviations(drawn) for system, drawn in each.items()} if len(trials) > 1 else {},
        differences=_differences([(t.runs["cascade"], t.runs["alone"]) for t in trials], OF_SYSTEMS, seed)
        if cascaded
        else {},
        kept_gain={name: _kept(reports, name) for name in OF_SYSTEMS} if cascaded else {},
        depths=_depths(trials, share) if cascaded else [],
    )


def versus(trial: Trial, other: Trial, against: str, share: float, *, seed: int) -> Versus:
    """Compare two indexes as they would serve, on the same messages.

    Args:
        trial: of the index that is evaluated.
        other: of the one that it is compared with.
        against: that one's folder.
        share: of out-of-scope messages that calibration assumed.
        seed: of the resampling.
    """
    return Versus(
        against=against,
        report=summarise(other.served, share),
        differences=_differences([(trial.served, other.served)], OF_INDEXES, seed),
    )


def _differences(
    pairs: Sequence[tuple[Run, Run]], figures: Mapping[str, Figure], seed: int
) -> dict[str, Difference | None]:
    columns = [(columns_of(one.judged), columns_of(other.judged)) for one, other in pairs]
    return differences(columns, figures, seed=seed)


def mean_of(reports: Sequence[Report]) -> Report:
    """The mean of each figure over the draws that have it; counts are those of the first, confirmations are added."""
    if len(reports) == 1:
        return reports[0]
    means = {field: _mean([getattr(report, field) for report in reports]) for field in _shares()}
    total: dict[str, int] = {}
    for report in reports:
        for status, count in report.confirmations.items():
            total[status] = total.get(status, 0) + count
    return msgspec.structs.replace(reports[0], **means, confirmations=total)


def _shares() -> list[str]:
    """The names of `Report`'s figures, as attributes, without what is counted."""
    counted = {"messages", "in_scope", "out_of_scope", "confirmations"}
    return [name for name in Report.__struct_fields__ if name not in counted]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _deviations(reports: Sequence[Report]) -> dict[str, float]:
    names = dict(zip(Report.__struct_fields__, Report.__struct_encode_fields__, strict=True))
    found = {}
    for field in _shares():
        known = [value for report in reports if (value := getattr(report, field)) is not None]
        if len(known) > 1:
            found[names[field]] = statistics.stdev(known)
    return found


def _kept(reports: Mapping[System, Report], name: str) -> float | None:
    field = dict(zip(Report.__struct_encode_fields__, Report.__struct_fields__, strict=True))[name]
    alone, cascade, full = (getattr(reports[s], field) for s in ("alone", "cascade", "full_confirmation"))
    return (cascade - alone) / (full - alone) if None not in {alone, cascade, full} and full > alone else None


def _depths(trials: Sequence[Trial], share: float) -> list[Depth]:
    found = []
    for number in range(min(len(trial.depths) for trial in trials)):
        report = mean_of([summarise(trial.depths[number], share) for trial in trials])
        found.append(Depth(candidates=number + 1, accuracy_at_1=report.accuracy_at_1, milliseconds=report.milliseconds))
    return found
