"""How right answers are: the bi-encoder with its heads beside the cascade, on FAQs of its own and on public sets.

    python -m bench.answers [--data PATH/TO/data] [--only shop banking77] [--cross-encoder var/cross-encoder]
        [--shots 10] [--draws 5] [--target-precision 0.9]

Without `--data` there are the sample shop and the FAQs of `training/unseen` (messages of all of them counted together,
each put to its own FAQ). `--data` is a folder with the public sets, one folder each:

- banking77, clinc150, hwu64: `train.csv` is the FAQ, `test.csv` the messages (`text,intent`); clinc150 has
  `oos_test.csv` as well
- banking77_oos: `in_scope_train.csv` is the FAQ; `in_scope_test.csv` and, out of scope, `near_oos_test.csv`
- covid_faq: `faq.csv` (`question,answer`), questions as its only phrasings; `paraphrases.csv` has the messages, those
  that are the `same`

With `--shots` only so many phrasings of each entry are known, drawn anew for each draw; figures are means. All that a
build fits comes from the FAQ. Intervals are of the cascade's gain, 95 %, by 1,000 resamples of messages.
"""

import argparse
import csv
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import heading
from intents.bootstrap import Difference
from intents.build import Options
from intents.comparison import Comparison, compare
from intents.entries import Entry, Faq, Header
from intents.figures import Report
from intents.formats import load_faq
from intents.labelled import Labelled, read_labelled
from intents.systems import Trial, pooled
from server.cli.evaluator import Evaluator
from server.cli.options import SAMPLE_FAQ, SAMPLE_MESSAGES
from server.settings import read_settings

UNSEEN = Path(__file__).parents[1] / "training" / "unseen"
SEED = 1

Part = tuple[Faq, list[Labelled]]
"""A FAQ, and the messages that are put to it."""


@dataclass(frozen=True)
class Row:
    """What came out for one set."""

    name: str
    compared: Comparison


def main() -> None:
    """Evaluate set after set, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the public sets")
    parser.add_argument("--only", nargs="+", choices=[*OWN, *PUBLIC], help="these sets only")
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="bundle of the bi-encoder")
    parser.add_argument(
        "--cross-encoder", type=Path, help="bundle of the cross-encoder; none leaves the bi-encoder alone"
    )
    parser.add_argument("--shots", type=int, help="phrasings an entry; all of them unless said otherwise")
    parser.add_argument("--draws", type=int, default=5, help="how often to draw them")
    parser.add_argument("--target-precision", type=float, default=0.9, help="of answered messages")
    options = parser.parse_args()
    wanted = options.only or [*OWN, *(PUBLIC if options.data else ())]
    if options.data is None and not set(wanted) <= set(OWN):
        parser.error("public sets need --data")
    build = Options(target_precision=options.target_precision)
    evaluator = Evaluator(read_settings(None, model=options.model, cross_encoder=options.cross_encoder), build)
    rows = []
    for name in wanted:
        parts = OWN[name]() if name in OWN else PUBLIC[name](options.data / name)
        trials = list(_trials(evaluator, parts, options.shots, options.draws))
        rows.append(Row(name, compare(trials, build.out_of_scope_share, seed=SEED)))
    places = {str(path): path.name for path in (options.data, options.cross_encoder, options.model) if path}
    words = " ".join(places.get(word, word) for word in sys.argv[1:])
    print(heading(f"python -m bench.answers {words}".strip()))
    print("\n".join(_tables(rows)))


def _trials(evaluator: Evaluator, parts: Sequence[Part], shots: int | None, draws: int) -> Iterator[Trial]:
    """A trial for each draw, the messages of all parts together."""
    with tempfile.TemporaryDirectory(prefix="faqwire-answers-") as aside:
        roots = [Path(aside) / str(number) for number in range(len(parts))]
        if shots is None:
            built = zip(parts, roots, strict=True)
            yield pooled([evaluator.put(messages, evaluator.build(faq, root)) for (faq, messages), root in built])
            return
        each = [
            evaluator.put_shots(faq, messages, shots, draws, SEED, root)
            for (faq, messages), root in zip(parts, roots, strict=True)
        ]
        yield from (pooled(together) for together in zip(*each, strict=True))


def _shop() -> list[Part]:
    faq = load_faq(SAMPLE_FAQ).faq
    return [(faq, read_labelled(SAMPLE_MESSAGES, _ids(faq))[0])]


def _unseen() -> list[Part]:
    faqs = [(path, load_faq(path).faq) for path in sorted(UNSEEN.glob("*.yaml"))]
    return [(faq, read_labelled(path.with_name(f"{path.stem}_messages.csv"), _ids(faq))[0]) for path, faq in faqs]


def _intents(folder: Path) -> list[Part]:
    return _labelled(folder, "train.csv", "test.csv", "oos_test.csv" if (folder / "oos_test.csv").is_file() else None)


def _near(folder: Path) -> list[Part]:
    return _labelled(folder, "in_scope_train.csv", "in_scope_test.csv", "near_oos_test.csv")


def _labelled(folder: Path, train: str, test: str, beside: str | None) -> list[Part]:
    faq = load_faq(folder / train).faq
    messages = read_labelled(folder / test, _ids(faq))[0]
    if beside is not None:
        messages += [Labelled(row["text"], None) for row in _rows(folder / beside)]
    return [(faq, messages)]


def _covid(folder: Path) -> list[Part]:
    entries: dict[str, Entry] = {}
    for row in _rows(folder / "faq.csv"):
        question = row["question"].strip()
        entries.setdefault(question.lower(), Entry(id=f"e{len(entries)}", question=question, answer=row["answer"]))
    messages = [
        Labelled(row["message"], entries[row["faq_question"].strip().lower()].id)
        for row in _rows(folder / "paraphrases.csv")
        if row["same"] == "1" and row["faq_question"].strip().lower() in entries
    ]
    return [(Faq(header=Header(name="COVID FAQ"), entries=tuple(entries.values())), messages)]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _ids(faq: Faq) -> set[str]:
    return {entry.id for entry in faq.entries}


OWN: dict[str, Callable[[], list[Part]]] = {"shop": _shop, "unseen": _unseen}
PUBLIC: dict[str, Callable[[Path], list[Part]]] = {
    "banking77": _intents,
    "clinc150": _intents,
    "hwu64": _intents,
    "banking77_oos": _near,
    "covid_faq": _covid,
}

_SYSTEMS = (("alone", "bi-encoder"), ("cascade", "cascade"))
_FIGURES = ("accuracy@1", "accuracy@3", "auroc", "answered", "reweighted_precision", "clarified")
_MORE = ("out_of_scope_recall", "overall_accuracy", "reweighted_calibration_error", "share_confirmed")


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    columns = ("accuracy@1", "@3", "AUROC", "answered", "precision", "clarified")
    more = ("out-of-scope recall", "overall accuracy", "calibration error", "confirmed")
    yield "Precision and calibration error are reweighted to 30 % of messages out of scope, where there are any.\n"
    yield f"| set | in scope | out | system | {' | '.join((*columns, *more))} |"
    yield "|---" * (4 + len(columns) + len(more)) + "|"
    for row in rows:
        for system, title in _SYSTEMS:
            report = row.compared.reports.get(system)  # type: ignore[call-overload]  # by its literal name
            if report is not None:
                cells = " | ".join(_cell(report, field) for field in (*_FIGURES, *_MORE))
                yield f"| {row.name} | {report.in_scope:,} | {report.out_of_scope:,} | {title} | {cells} |"
    gains = [(row.name, row.compared) for row in rows if row.compared.differences]
    if not gains:
        return
    yield "\nWhat the cascade gains over the bi-encoder, and which share of full confirmation's gain that is:\n"
    yield "| set | accuracy@1 | AUROC | kept of accuracy | kept of AUROC |"
    yield "|---|---|---|---|---|"
    for name, compared in gains:
        kept = compared.kept_gain
        gained = [_gain(compared.differences[figure]) for figure in ("accuracy@1", "auroc")]
        shares = ["-" if (share := kept.get(figure)) is None else f"{share:.0%}" for figure in ("accuracy@1", "auroc")]
        yield f"| {name} | {' | '.join(gained + shares)} |"
    means = []
    for figure in ("accuracy@1", "auroc"):
        known = [one.difference for _, compared in gains if (one := compared.differences[figure]) is not None]
        means.append(f"{statistics.fmean(known):+.4f} ({len(known)} sets)" if known else "-")
    yield f"| mean | {' | '.join(means)} | | |"


def _cell(report: Report, field: str) -> str:
    attribute = dict(zip(Report.__struct_encode_fields__, Report.__struct_fields__, strict=True))[field]
    value: float | None = getattr(report, attribute)
    if field.startswith("reweighted") and value is None:
        value = getattr(report, attribute.removeprefix("reweighted_"))
    return "-" if value is None else f"{value:.4f}"


def _gain(one: Difference | None) -> str:
    return "-" if one is None else f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


if __name__ == "__main__":
    main()
