"""The report from the answers of Prometheus and Alertmanager."""

import json
import re

import pytest
from promql_names import metric_names

from streampulse.core.errors import OperatorError
from streampulse.host.slo import report
from streampulse.host.slo.command import lines
from streampulse.host.slo.report import Firing, Report
from streampulse.host.slo.server import Sample
from streampulse_ops.monitoring import metrics


def sample(name: str, value: float | None, slo: str) -> Sample:
    return Sample({"__name__": name, "slo": slo}, value)


def firing(name: str, severity: str = "page", since: float = 0, **more: bool) -> Firing:
    quiet = {"silenced": False, "inhibited": False, **more}
    return Firing(name, severity, "kafka", "a", "", since, "s", "r", **quiet)


def test_promises_have_their_order_and_their_known_values() -> None:
    found = report.promises_of(
        [
            sample("slo:objective:ratio", 0.5, "zzz"),
            sample("slo:objective:ratio", 0.99, "latency"),
            sample("slo:objective:ratio", 0.95, "freshness"),
            sample("slo:error_ratio:rate5m", 0.25, "freshness"),
            sample("slo:error_ratio:rate30d", None, "freshness"),
            sample("slo:error_budget_remaining:ratio30d", -0.5, "freshness"),
            sample("slo:error_ratio:rate5m", 0.25, "unheard_of"),
        ]
    )
    assert [promise.name for promise in found] == ["freshness", "latency", "zzz"]
    assert found[0].good == {"5m": 0.75, "1h": None, "1d": None, "30d": None}
    assert (found[0].objective, found[0].budget_remaining) == (0.95, -0.5)
    assert found[1].budget_remaining is None


def test_figures_are_made_of_metrics_that_there_are() -> None:
    known = {series for metric in metrics.catalogue() for series in metric.series}
    for name, expression in report.FIGURES.items():
        assert metric_names(expression) <= known, name


@pytest.mark.parametrize("name", ["requests_per_second", "request_p99_seconds"])
def test_figures_exclude_requests_of_machines(name: str) -> None:
    (left_out,) = re.findall(r'route!~"([^"]+)"', report.FIGURES[name])
    assert {"/health", "/prometheus"} <= set(left_out.split("|"))
    # How long a reader stays is no duration of an answer; that it came is a request.
    assert ("/live" in left_out.split("|")) == (name == "request_p99_seconds")


@pytest.mark.parametrize(
    ("sums", "counts", "mean"),
    [
        ([[1.0, 1.0, 3.0, 3.0]], [[1.0, 1.0, 2.0, 2.0]], 2.0),
        ([[1.0, 4.0, 5.0]], [[1.0, 3.0, 4.0]], 1.0),  # the newest step, not the largest
        ([[5.0, 1.0]], [[4.0, 1.0]], None),  # restarted in between
        ([[1.0, 1.0]], [[1.0, 1.0]], None),
        ([[1.0]], [[1.0]], None),
        ([], [], None),
        ([[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]], None),
        ([[1.0, 2.0]], [[1.0]], None),
    ],
)
def test_the_newest_observation_of_a_histogram(
    sums: list[list[float]], counts: list[list[float]], mean: float | None
) -> None:
    assert report.newest_mean(sums, counts) == mean


def test_pages_come_first_and_alerts_without_receivers_are_left_out() -> None:
    alerts = [
        firing("Ticket", "ticket", 1), firing("Watchdog", "none", 0), firing("RecentOutage", "none", 0),
        firing("SomebodysOwn", "", 0), firing("Quiet", "page", 1, silenced=True),
        firing("Follows", "page", 2, inhibited=True), firing("Later", "page", 5), firing("Sooner", "page", 4),
    ]  # fmt: skip
    found = report.ordered(alerts)
    assert [alert.name for alert in found] == ["Sooner", "Later", "Quiet", "Follows", "Ticket", "SomebodysOwn"]
    assert [alert.name for alert in found if alert.pages] == ["Sooner", "Later"]


def test_targets_that_are_down_stand_first_and_say_why() -> None:
    labels = {"job": "kafka", "host": "a", "instance": "10.0.0.1:9404"}
    found = report.targets_of(
        [
            {"labels": labels, "health": "up", "lastError": ""},
            {"labels": {**labels, "host": "b"}, "health": "down", "lastError": "connection\nrefused"},
            {"labels": {**labels, "host": "c"}, "health": "unknown", "lastError": ""},
        ]
    )
    assert [(target.host, target.up, target.error) for target in found] == [
        ("b", False, "connection refused"),
        ("c", False, "not asked yet"),
        ("a", True, ""),
    ]


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (None, "no data"), (1.0, "100 %"), (0.0, "0 %"), (0.95, "95.0 %"), (0.29, "29.0 %"), (0.995, "99.50 %"),
        (0.9996, "99.960 %"), (0.9999999, "99.999 %"), (-0.5, "-50.0 %"), (1.0000001, "100.0 %"),
    ],
)  # fmt: skip
def test_a_share_is_never_rounded_up_to_all(share: float | None, shown: str) -> None:
    assert report.percent(share) == shown


def test_a_report_survives_being_sent() -> None:
    made = Report(
        10.0,
        report.promises_of([sample("slo:objective:ratio", 0.95, "freshness")]),
        [firing("KafkaDown"), firing("Quiet", silenced=True)],
        {"lag_seconds": None},
        report.targets_of([{"labels": {"job": "kafka", "host": "a", "instance": "i"}, "health": "down"}]),
        ["p"],
    )
    assert Report.read(json.loads(json.dumps(made.document()))) == made
    said = "\n".join(lines(made))
    for words in ("freshness: 95 % promised", "page: KafkaDown: s", "Quiet (silenced)", "0 of 1 up", "not known: p"):
        assert words in said


@pytest.mark.parametrize("document", [{}, [], "x", {"time": 1, "promises": [{"name": "x"}]}])
def test_a_report_of_another_release_is_said_to_be_one(document: object) -> None:
    with pytest.raises(OperatorError, match="another release"):
        Report.read(document)
