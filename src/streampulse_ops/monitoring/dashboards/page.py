"""The page of the documentation that says how to read every panel, made from the dashboards themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from streampulse_ops.monitoring.dashboards import panels

FILE: Final = "docs/dashboards.md"
_HEADER: Final = """\
# Dashboards

<!-- Made by `./inv docs` from src/streampulse_ops/monitoring/dashboards. Change the code, not this page. -->

Grafana shows them in its folder `streampulse`; `./inv open grafana` prints where. Begin with [Overview](#overview):
it answers whether everything is healthy and whether the numbers can be trusted, and each figure leads further down.

- **Environment** chooses whose figures are shown: each environment has a Prometheus of its own, named after it.
  **Host** chooses hosts, where a dashboard has several.
- A colour changes, and a dashed line is drawn, where an alert begins to count: both are made from the same values.
- Blue marks are deploys: a version of the job or the API that did not run in the ten minutes before. Red ones are
  alerts that woke somebody.
- Beside a panel's title are links to the runbook and to the dashboard that says more. Times are UTC.

Dashboards are made from code and cannot be changed in Grafana; copies can. What they ask is also asked, panel by panel,
of a real Prometheus and a real PostgreSQL by the tests.
"""
#: Units of Grafana in words.
_UNITS: Final[Mapping[str, str]] = {
    panels.SECONDS: "s",
    panels.RATIO: "%",
    panels.COUNT: "number",
    panels.BYTES: "bytes",
    panels.BYTES_PER_SECOND: "bytes/s",
    panels.EVENTS_PER_SECOND: "events/s",
    panels.RECORDS_PER_SECOND: "records/s",
    panels.ROWS_PER_SECOND: "rows/s",
    panels.REQUESTS_PER_SECOND: "requests/s",
    panels.OPERATIONS_PER_SECOND: "a second",
    panels.DOLLARS: "US dollars",
    panels.MILLISECONDS: "ms",
    panels.DAYS: "days",
    panels.AGO: "time ago",
    panels.NO_UNIT: "",
}


def text(boards: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page.

    :param boards: every dashboard as JSON, by its name, in the order of the page.
    """
    return "\n".join([_HEADER, *(line for name, board in boards.items() for line in _board(name, board))])


def maker(boards: Callable[[], Mapping[str, Mapping[str, Any]]]) -> Callable[[Path], str]:
    """Return what makes the page in a checkout."""
    return lambda _root: text(boards())


def _board(name: str, board: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {panels.DASHBOARDS[name]}\n"
    yield f"{board['description']}\n"
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield f"### {panels.DASHBOARDS[name]}: {panel['title'][0].lower()}{panel['title'][1:]}\n"
            yield "| panel | unit | how to read it |"
            yield "|---|---|---|"
            continue
        unit = _UNITS[panel["fieldConfig"]["defaults"]["unit"]]
        yield "| " + " | ".join(_cell(word) for word in (panel["title"], unit, panel["description"])) + " |"
        if _is_last(panel, board):
            yield ""


def _cell(word: str) -> str:
    # What begins with a dollar sign is chosen above the panels.
    return re.sub(r"\$(\w+)", r"the chosen \1", word).replace("|", "\\|")


def _is_last(panel: Mapping[str, Any], board: Mapping[str, Any]) -> bool:
    """Whether a panel is the last one of its row."""
    at = board["panels"].index(panel)
    return at + 1 == len(board["panels"]) or bool(board["panels"][at + 1]["type"] == "row")
