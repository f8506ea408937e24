"""A real Alertmanager with streampulse's configuration: routes and inhibitions."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alertmanager import Alertmanager, Told, receiving, started, wait

from streampulse.host import cli
from streampulse.host.slo import report


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with receiving() as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, told: Told) -> Iterator[Alertmanager]:
    given = {"alertmanager_webhook_url": f"{told.url}/people", "alertmanager_deadman_url": f"{told.url}/deadman"}
    with started(tmp_path_factory.mktemp("alertmanager"), **given) as running:
        yield running


@pytest.fixture
def alertmanager(running: Alertmanager) -> Alertmanager:
    running.clear()
    return running


def test_people_get_pages_and_tickets_and_the_switch_gets_the_watchdog(alertmanager: Alertmanager, told: Told) -> None:
    alertmanager.fire("ServiceAway@kafka", "RecentOutage@kafka")
    alertmanager.fire("Watchdog", "KafkaDown", "PipelineStalled", "GrafanaDown")
    wait(lambda: told.names("/deadman") == {"Watchdog"}, 5)
    wait(lambda: told.names("/people") == {"KafkaDown", "GrafanaDown"}, 20)
    # Inhibited alerts and alerts without a receiver would have arrived together with these.
    time.sleep(3)
    assert told.names("/people") == {"KafkaDown", "GrafanaDown"}
    assert told.names("/deadman") == {"Watchdog"}
    (group,) = [body for path, body in told.bodies if path == "/people" and "KafkaDown" in json.dumps(body)]
    assert group["groupLabels"] == {"alertname": "KafkaDown", "host": "a", "service": "kafka"}


BUDGETS = {f"{name}BudgetBurning" for name in ("Freshness", "Correctness", "Availability", "Latency", "Completeness")}
PAGES = {f"{name}/page" for name in BUDGETS}
PIPELINE = {"FreshnessBudgetBurning/page", "CorrectnessBudgetBurning/page", "CompletenessBudgetBurning/page"}


@pytest.mark.parametrize(
    ("cause", "follows", "others"),
    [
        ("ServiceAway@kafka", {
            "JobDown", "PipelineStalled", "ProbeFailing", "BatchesSlow", "KafkaPartitionsOffline",
            "UnitFlapping", *PIPELINE}, {
            "KafkaDown", "ApiDown", "ApiErrorRateHigh", "DiskAlmostFull", "AvailabilityBudgetBurning/page"}),
        # One host down among several only explains its neighbours' missing peers.
        ("KafkaDown@b", {"KafkaUnderReplicated"}, {
            "JobDown", "PipelineStalled", "KafkaPartitionsOffline", "DiskAlmostFull@b", *PIPELINE}),
        ("KafkaPartitionsOffline", PIPELINE, {"JobDown", "LatencyBudgetBurning/page"}),
        ("PostgresDown", {"JobDown", "PipelineStalled", "ProbeFailing", "ApiErrorRateHigh", *PAGES}, {
            "ApiDown", "KafkaDown", "FreshnessBudgetBurning/ticket"}),
        ("ServiceAway@spark-master", {"SparkWorkerDown", "JobDown", "PipelineStalled", *PIPELINE}, {
            "ApiErrorRateHigh", "SparkMasterDown"}),
        ("ServiceAway@spark-worker", {"PipelineStalled", "JobDown", "UnitFlapping", *PIPELINE}, {
            "ApiDown", "SparkWorkerDown"}),
        ("SparkWorkerDown@b", set(), {"JobDown", "PipelineStalled", *PIPELINE}),
        ("ServiceAway@job", {"PipelineStalled", "ProbeFailing", *PIPELINE}, {
            "JobDown", "ApiDown", "LatencyBudgetBurning/page"}),
        ("JobDown", {"UnitFlapping"}, {"UnitFailed@b"}),
        ("ServiceAway@api", {"ApiErrorRateHigh", "ProbeFailing", *(PAGES - {"CompletenessBudgetBurning/page"})}, {
            "ApiDown", "PipelineStalled", "CompletenessBudgetBurning/page"}),
        ("ApiDown@b", {"ApiErrorRateHigh@b"}, {"ApiErrorRateHigh", "ProbeFailing", *PAGES}),
        ("ApiErrorRateHigh", {"ProbeFailing", *(PAGES - {"CompletenessBudgetBurning/page"})}, {"PipelineStalled"}),
        ("PipelineStalled", {"BatchesSlow", "ProbeFailing", *PIPELINE}, {"AvailabilityBudgetBurning/page"}),
        # The outage ends, and its consequences a little later.
        ("OutageJustOver@postgres", {"ApiErrorRateHigh", "JobDown", "PipelineStalled"}, {
            "UnitFlapping", "ProbeFailing", "KafkaDown", "SparkWorkerDown", "PostgresDown", *PAGES}),
        ("OutageLatelyOver@postgres", {"UnitFlapping", "UnitFailed", "ProbeFailing", "BatchesSlow"}, {
            "ApiErrorRateHigh", "JobDown", "PipelineStalled"}),
        ("OutageJustOver@kafka", {"JobDown", "PipelineStalled", "KafkaPartitionsOffline"}, {
            "ApiErrorRateHigh", "KafkaDown", "ProbeFailing"}),
        ("OutageJustOver@spark-master", {"SparkWorkerDown", "JobDown", "PipelineStalled"}, {"SparkMasterDown"}),
        ("OutageJustOver@job", {"PipelineStalled"}, {"JobDown", "BatchesSlow", "ProbeFailing"}),
        ("OutageLatelyOver@job", {"BatchesSlow", "ProbeFailing"}, {"PipelineStalled"}),
        ("OutageJustOver@api", {"ApiErrorRateHigh"}, {"ApiDown", "ProbeFailing", "JobDown"}),
        ("OutageLatelyOver@api", {"ProbeFailing"}, {"ApiErrorRateHigh"}),
        ("OutageJustOver@b", {"KafkaDown@b", "ApiDown@b", "DiskAlmostFull@b"}, {
            "KafkaDown", "PipelineStalled", *PAGES}),
        ("OutageLatelyOver@b", set(), {"KafkaDown@b", "UnitFlapping@b"}),
        ("RecentOutage@api", {"AvailabilityBudgetBurning/page"}, {"CompletenessBudgetBurning/page"}),
        ("RecentOutage@job", PIPELINE, {"LatencyBudgetBurning/page", "FreshnessBudgetBurning/ticket"}),
        ("RecentOutage@postgres", PAGES, {"PipelineStalled"}),
        ("LatencyBudgetBurning/page", {"LatencyBudgetBurning/ticket"}, {"FreshnessBudgetBurning/ticket"}),
        ("AlertmanagerDown", {"NotificationsFailing"}, {"GrafanaDown"}),
        ("HostDown", {"DiskAlmostFull", "KafkaDown", "JobDown", "ApiDown", "MemoryLow", "ClockOffset"}, {
            "DiskAlmostFull@b", "ApiDown@b", "HostDown@b", "PipelineStalled", *PAGES}),
        ("GrafanaDown", set(), {"ProbeDown", "GeneratorDown", "KafkaDown", *PAGES}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_consequence_is_inhibited(
    alertmanager: Alertmanager, cause: str, follows: set[str], others: set[str]
) -> None:
    alertmanager.fire(cause, *follows)
    assert alertmanager.quiet() == follows
    for other in sorted(others):
        # Each alone with the cause: a consequence would inhibit more.
        alertmanager.clear()
        alertmanager.fire(cause, other)
        assert alertmanager.quiet() == set(), other


def test_an_inhibited_alert_inhibits_its_consequences(alertmanager: Alertmanager) -> None:
    # A host of Kafka alone is down: stalls elsewhere follow from that.
    alertmanager.fire("HostDown@b", "KafkaDown@b", "NodeExporterDown@b", "PipelineStalled", "ProbeFailing@c")
    alertmanager.fire("ServiceAway@kafka")
    assert alertmanager.loud() == {"HostDown@b", "ServiceAway"}
    assert alertmanager.quiet() == {"KafkaDown@b", "NodeExporterDown@b", "PipelineStalled", "ProbeFailing@c"}


@pytest.fixture
def silence(
    alertmanager: Alertmanager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Return ``streampulse silence`` for it; its result is JSON."""
    for name in ("PROMETHEUS", "ALERTMANAGER"):
        monkeypatch.setenv(f"STREAMPULSE_MONITORING_{name}_URL", alertmanager.url)

    def run(*words: str) -> Any:
        assert cli.main(["silence", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_a_silence_matches_its_selection_and_ends_on_request(
    alertmanager: Alertmanager, silence: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    alertmanager.fire("GrafanaDown", "DiskAlmostFull", "DiskAlmostFull@b", "Watchdog")
    tried = silence("--for", "10m", "--reason", "disks", "--host", "b", "--dry-run")
    assert tried["firing"] == ["DiskAlmostFull on b"]
    assert silence() == {"silences": []}
    made = silence("--for", "10m", "--reason", "new disks", "--author", "anna@desk", "--host", "b")["made"]
    assert (made["state"], made["author"], made["reason"], made["about"]) == (
        "active", "anna@desk", "new disks", "host b",
    )  # fmt: skip
    assert made["ends"] == pytest.approx(time.time() + 600, abs=5)
    wait(lambda: silenced(alertmanager) == {"DiskAlmostFull@b"}, 5)
    found = report.ordered(report._held(each) for each in alertmanager.ask("/api/v2/alerts"))
    assert {(each.name, each.host): each.silenced for each in found} == {
        ("GrafanaDown", "a"): False, ("DiskAlmostFull", "a"): False, ("DiskAlmostFull", "b"): True,
    }  # fmt: skip
    assert [each["identity"] for each in silence()["silences"]] == [made["identity"]]
    assert silence("--expire", made["identity"][:8])["ended"]["state"] == "expired"
    wait(lambda: not silenced(alertmanager), 5)
    assert silence() == {"silences": []}
    assert cli.main(["silence", "--expire", made["identity"][:8]]) == 1
    assert "is not a silence that stands" in capsys.readouterr().err


def test_a_silence_about_everything_leaves_the_switch_alone(
    alertmanager: Alertmanager, silence: Callable[..., Any]
) -> None:
    alertmanager.fire("GrafanaDown", "KafkaDown", "Watchdog")
    made = silence("--for", "10m", "--reason", "r", "--all")["made"]
    assert made["about"] == "every alert but Watchdog"
    wait(lambda: silenced(alertmanager) == {"GrafanaDown", "KafkaDown"}, 5)
    silence("--expire", made["identity"])


def silenced(alertmanager: Alertmanager) -> set[str]:
    return alertmanager._named(lambda alert: bool(alert["status"]["silencedBy"]))
