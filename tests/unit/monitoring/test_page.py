"""docs/observability.md lists all that there is. That it is fresh, the tests of the reference say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streampulse.core import limits as values
from streampulse_ops.docs import pages as docs
from streampulse_ops.monitoring import alerts, metrics, page, recording
from streampulse_ops.monitoring.model import Recorded

ROOT = Path(__file__).parents[3]
TEXT = page.page(ROOT)


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_it_is_one_of_the_files_that_are_made() -> None:
    assert docs.PAGES[page.FILE](ROOT) == TEXT


def test_every_metric_of_ours_is_listed_once_with_type_labels_and_help() -> None:
    found = {row[0]: row[1:] for row in rows(section("Metrics")) if row[0] != "metric"}
    assert len(found) == len(metrics.catalogue())
    for metric in metrics.catalogue():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert found[f"`{metric.name}`"] == [metric.kind, labels, metric.help.replace("|", "\\|")]


def test_every_alert_is_listed_with_its_meaning_and_its_runbook() -> None:
    listed = {(row[0], row[1]): row for row in rows(section("Alerts")) if row[0] != "alert"}
    assert len(listed) == len(alerts.everything())
    for alert in alerts.everything():
        row = listed[f"[`{alert.name}`](runbooks/{alert.runbook}.md)", alert.severity]
        assert row[2] == alert.condition
        assert row[3] == alert.description
        assert row[4] or alert.severity == "none"


@pytest.mark.parametrize("slo", values.OBJECTIVES, ids=lambda slo: slo.name)
def test_every_promise_is_listed_with_how_it_is_measured(slo: values.Objective) -> None:
    found = [row for row in rows(section("Promises")) if row[0] == f"`{slo.name}`"]
    assert len(found) == 1 + len(slo.indicators)
    assert found[0][1] == slo.promise
    for row, sli in zip(found[1:], slo.indicators, strict=True):
        assert row[1:5] == [f"`{sli.name}`", sli.events, sli.good, f"{sli.objective * 100:g} %"]


def test_every_recorded_series_is_listed() -> None:
    listed = {row[0].strip("`"): row[2].split(", ") for row in rows(section("Recorded series"))}
    for group in recording.groups():
        for rule in group.rules:
            assert isinstance(rule, Recorded)
            base, _, window = rule.record.partition(":rate")
            assert rule.record in listed or window in listed[f"{base}:rateWINDOW"]


def test_the_method_is_cited_and_its_figures_are_those_of_the_rules() -> None:
    text = section("When a budget burns")
    assert page.WORKBOOK in text
    shown = [row[:3] for row in rows(text)[1 : 1 + len(values.BURNS)]]
    assert shown == [["14.4", "1 h", "5 min"], ["6", "6 h", "30 min"], ["3", "1 day", "2 h"], ["1", "3 days", "6 h"]]


def test_how_long_all_must_be_bad_is_what_the_promises_leave() -> None:
    found = {row[0]: row[1:] for row in rows(section("When a budget burns"))}
    # 14.4 times 0.1 % of an hour; 14.4 times 5 % of it.
    assert found["`availability`"][0] == "52 s"
    assert found["`freshness`"][0] == "43 min"
