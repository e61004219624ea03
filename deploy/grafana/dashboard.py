"""The Grafana dashboard, made of what `panels` says that it shows.

    python -m deploy.grafana.dashboard > deploy/grafana/faqwire.json

`faqwire.json` beside it is what Grafana imports; a test holds the two equal, and every query true to the metrics that
there are. Rates are those of all chosen instances together.
"""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from deploy.grafana.panels import ROWS, Panel, Row

# Width and height of a panel; a row is 24 wide.
WIDTH, HEIGHT = 8, 8
SELECTED = 'job=~"$job",instance=~"$instance"'
_METRIC = re.compile(r"\bfaqwire_\w+\b(\{[^}]*\})?")
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def chosen(query: str) -> str:
    """A query for the instances that are chosen on the dashboard."""

    def choose(metric: re.Match[str]) -> str:
        name, _, labels = metric[0].partition("{")
        return f"{name}{{{SELECTED},{labels}" if labels else f"{name}{{{SELECTED}}}"

    return _METRIC.sub(choose, query)


def dashboard(rows: Sequence[Row] = ROWS) -> dict[str, Any]:
    """What Grafana imports."""
    panels: list[dict[str, Any]] = []
    height = 0
    for row in rows:
        place = {"x": 0, "y": height, "w": 24, "h": 1}
        panels.append({"type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": place})
        height += 1
        for number, panel in enumerate(row.panels):
            x, y = number % (24 // WIDTH) * WIDTH, height + number // (24 // WIDTH) * HEIGHT
            panels.append({**_graph(panel), "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT}})
        height += -(-len(row.panels) // (24 // WIDTH)) * HEIGHT
    return {
        "uid": "faqwire",
        "title": "faqwire",
        "description": "What faqwire's metrics show; docs/metrics.md says what each of them is.",
        "tags": ["faqwire"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _choices()},
        "annotations": {"list": []},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def _choices() -> list[dict[str, Any]]:
    """What is chosen at the top: the data source, jobs and instances."""

    def labels(name: str, query: str) -> dict[str, Any]:
        return {
            "type": "query",
            "name": name,
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }

    return [
        {"type": "datasource", "name": "datasource", "label": "data source", "query": "prometheus"},
        labels("job", "label_values(faqwire_connections, job)"),
        labels("instance", 'label_values(faqwire_connections{job=~"$job"}, instance)'),
    ]


def _graph(panel: Panel) -> dict[str, Any]:
    """A panel without its place."""
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.note,
        "datasource": _SOURCE,
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": chosen(query), "legendFormat": legend}
            for number, (query, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {
                    "fillOpacity": 20 if panel.stacked else 0,
                    "showPoints": "never",
                    "stacking": {"mode": "normal" if panel.stacked else "none"},
                },
            },
            "overrides": [],
        },
        "options": {
            "tooltip": {"mode": "multi", "sort": "desc"},
            "legend": {"displayMode": "list", "placement": "bottom"},
        },
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
