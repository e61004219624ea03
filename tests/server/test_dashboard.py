"""Guards deploy/grafana: the dashboard is what its source says, and asks for metrics and labels that there are."""

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from deploy.grafana.dashboard import chosen, dashboard
from deploy.grafana.panels import ROWS
from server.telemetry import Metrics, SupervisorMetrics
from tests.test_docs import ROOT, read, table

FILE = ROOT / "deploy" / "grafana" / "faqwire.json"
# What Prometheus adds to each series.
OF_TARGETS = {"job", "instance"}
METRIC = re.compile(r"\b(faqwire_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|without|group_left|group_right) \(([^)]*)\)")

Series = dict[str, dict[str, set[str]]]


@functools.cache
def series() -> Series:
    """Every name that Prometheus has of a server, with its labels and those values of them that are fixed."""
    metrics = Metrics(CollectorRegistry())
    metrics.models["bi-encoder"].in_use.switch("CPUExecutionProvider", "int8")
    metrics.index_in_use.switch("1")
    found: Series = {}
    with TemporaryDirectory() as empty:
        families = [*metrics.registry.collect(), *SupervisorMetrics(Path(empty)).registry.collect()]
    for family in families:
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard, and what its series are called."""
    for panel in json.loads(FILE.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"], target["legendFormat"]


def asked() -> list[str]:
    """The queries that metrics.md shows."""
    return [re.findall("`([^`]+)`", row[1])[0] for row in rows("question")]


def rows(head: str) -> list[list[str]]:
    """The rows of a table of metrics.md, also where the first cell has no name."""
    found = re.search(rf"^\| {head} \|.*\n\|[-|]*\|\n((?:\|.*\n)+)", read("docs/metrics.md"), re.MULTILINE)
    assert found
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in found[1].splitlines()]


def mistakes(query: str, known: Series) -> Iterator[str]:
    """What in a query is not there."""
    labels = {label for name, _ in METRIC.findall(query) for label in known.get(name, {})} | OF_TARGETS
    for name, matchers in METRIC.findall(query):
        if name not in known:
            yield f"{name} is no metric"
            continue
        for label, operator, value in MATCHER.findall(matchers):
            if label not in known[name] and label not in OF_TARGETS:
                yield f"{name} has no {label}"
            elif operator == "=" and value not in known[name].get(label, {value}):
                yield f"{name} has no {label} {value!r}"
    for group in GROUPING.findall(query):
        for label in filter(None, group.split(", ")):
            if label not in labels:
                yield f"nothing in {query} has {label}"


def test_the_file_is_what_its_source_says() -> None:
    """`faqwire.json` has been made of the source as it is."""
    made = json.dumps(dashboard(), indent=2) + "\n"
    assert FILE.read_text(encoding="utf-8") == made, (
        "run: python -m deploy.grafana.dashboard > deploy/grafana/faqwire.json"
    )


def test_queries_ask_for_what_there_is() -> None:
    """Every metric, label and value in a query exists, and so does each label that names its series."""
    known = series()
    for query, legend in queries():
        assert not list(mistakes(query, known)), query
        grouped = {label for group in GROUPING.findall(query) for label in group.split(", ")}
        assert set(re.findall(r"{{(\w+)}}", legend)) <= grouped, f"{legend} names what {query} does not give"
        assert query.count('{job=~"$job",instance=~"$instance"') == len(METRIC.findall(query))


@pytest.mark.parametrize(
    "query",
    [
        "faqwire_nonsense_total",
        'faqwire_errors_total{reason="x"}',
        'faqwire_errors_total{code="nonsense"}',
        "sum by (code) (faqwire_refusals_total)",
        "rate(faqwire_message_seconds_total[5m])",
    ],
)
def test_mistakes_are_found(query: str) -> None:
    """The check above fails for what is wrong."""
    assert list(mistakes(chosen(query), series()))


def test_the_dashboard_shows_everything() -> None:
    """Every metric of the server is on a panel."""
    shown = {name for query, _ in queries() for name, _ in METRIC.findall(query)}
    metrics = {re.sub("_(bucket|sum|count)$", "", name) for name in series()}
    assert not metrics - {re.sub("_(bucket|sum|count)$", "", name) for name in shown}


def test_questions_of_the_documentation() -> None:
    """The queries that metrics.md shows ask for what there is, too."""
    assert len(asked()) > 5
    for query in asked():
        assert METRIC.search(query)
        assert not list(mistakes(query, series())), query


def test_panels_have_a_place_of_their_own() -> None:
    """No two panels overlap, all are inside of the grid, and ids are unique."""
    made: dict[str, Any] = dashboard()
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])


def test_rows_are_documented() -> None:
    """metrics.md says which rows the dashboard has."""
    documented = table(read("docs/metrics.md"), "row of the dashboard")
    assert list(documented) == [row.title for row in ROWS]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_promtool_reads_the_queries(tmp_path: Path) -> None:
    """Prometheus's own parser takes every query, of the dashboard and of the documentation."""
    every = [query.replace("$__rate_interval", "1m") for query, _ in queries()] + asked()
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(every)]
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
