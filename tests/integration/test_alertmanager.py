"""A real Alertmanager with streampulse's configuration: routes and inhibitions."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port

from streampulse.host import cli
from streampulse.host.slo import report
from streampulse_ops.monitoring import promlint, promtools, rules

ROOT = Path(__file__).parents[2]
#: Alertmanager opens its templates here.
TEMPLATES = Path("/usr/share/prometheus/alertmanager")
BY_NAME = {(each.name, each.severity): each for each in rules.alerts()}


class Told(ThreadingHTTPServer):
    """Receives notifications and stores them by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[tuple[str, dict[str, Any]]] = []

    def names(self, path: str, status: str = "firing") -> set[str]:
        return {
            alert["labels"]["alertname"]
            for where, body in self.bodies
            if where == path
            for alert in body["alerts"]
            if alert["status"] == status
        }


class _Handler(BaseHTTPRequestHandler):
    server: Told

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any, **__: Any) -> None:
        return


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    server = Told()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Alertmanager:
    """A running Alertmanager and its queries."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    @property
    def url(self) -> str:
        return self._url

    def ask(self, path: str, body: Any = None) -> Any:
        method = "GET" if body is None else "POST"
        answer = httpx.request(method, f"{self._url}{path}", json=body, timeout=5)
        answer.raise_for_status()
        return answer.json() if "json" in answer.headers.get("Content-Type", "") else answer.text

    def fire(self, *names: str) -> None:
        """Send alerts: ``Name``, ``Name@host``, and with ``/ticket`` the ticket of that name.

        Alerts without a host but with a service use ``Name@service``.
        """
        sent = []
        for text in names:
            name, _, severity = text.partition("/")
            name, _, host = name.partition("@")
            made = next(each for key, each in BY_NAME.items() if key[0] == name and severity in ("", key[1]))
            labels = {"alertname": made.name, "severity": made.severity, "environment": "test", **made.labels}
            labels["service"] = made.service if "{{" not in made.service else "job"
            if made.name == "RecentOutage":
                labels["cause"] = host
            elif made.name == "ServiceAway":
                labels["service"] = host
            elif made.name.startswith("Outage"):
                # The outage of host a or b, or otherwise of a service.
                labels |= {"service": "host", "host": host} if host in ("a", "b") else {"service": host}
            elif made.per_host:
                labels["host"] = host or "a"
            sent.append({"labels": labels, "annotations": {"summary": "s", "description": "d", "dashboard_url": "u"}})
        self.ask("/api/v2/alerts", sent)

    def clear(self) -> None:
        """Resolve every alert."""
        over = datetime.now(UTC).isoformat()
        self.ask("/api/v2/alerts", [{"labels": each["labels"], "endsAt": over} for each in self._firing()])
        wait(lambda: not self._firing(), 5)

    def _firing(self) -> list[dict[str, Any]]:
        return list(self.ask("/api/v2/alerts"))

    def quiet(self) -> set[str]:
        """Return the inhibited alerts, in the notation of :meth:`fire`."""
        return self._named(lambda alert: bool(alert["status"]["inhibitedBy"]))

    def loud(self) -> set[str]:
        """Return the notified alerts."""
        return self._named(lambda alert: not alert["status"]["inhibitedBy"])

    def _named(self, wanted: Any) -> set[str]:
        found = set()
        for alert in self._firing():
            labels = alert["labels"]
            several = len([key for key in BY_NAME if key[0] == labels["alertname"]]) > 1
            text = labels["alertname"] + (f"/{labels['severity']}" if several else "")
            if labels.get("host", "a") != "a":
                text += f"@{labels['host']}"
            if wanted(alert):
                found.add(text)
        return found


def with_templates() -> list[str]:
    """Return a command prefix that mounts Debian's templates at Alertmanager's path, for its process alone."""
    if TEMPLATES.is_dir():
        return []
    program = promtools.find("prometheus-alertmanager", print)
    script = (
        'kept=$(mktemp -d); cp "$1"/*.tmpl "$kept"; mount -t tmpfs none /usr/share; '
        'mkdir -p "$2"; cp "$kept"/*.tmpl "$2"; rm -r "$kept"; shift 2; exec "$@"'
    )
    folders = [str(program.parents[2] / TEMPLATES.relative_to("/")), str(TEMPLATES)]
    return ["unshare", "--map-root-user", "--mount", "sh", "-ec", script, "sh", *folders]


def unable() -> str | None:
    """Return why Alertmanager cannot run here, None if it can."""
    try:
        promtools.find("prometheus-alertmanager", print)
    except promtools.Unavailable as error:
        return str(error)
    tried = subprocess.run([*with_templates(), "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no mount of one's own: {tried.stderr.strip()}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, told: Told) -> Iterator[Alertmanager]:
    reason = unable()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the tests of Alertmanager, and cannot: {reason}")
        pytest.skip(reason)
    program = promtools.find("prometheus-alertmanager", print)
    tmp_path = tmp_path_factory.mktemp("alertmanager")
    url = f"http://127.0.0.1:{told.server_port}"
    given = {"alertmanager_webhook_url": f"{url}/people", "alertmanager_deadman_url": f"{url}/deadman"}
    file = tmp_path / "alertmanager.yml"
    file.write_text(promlint.alertmanager_configuration(ROOT, **given), encoding="utf-8")
    port = free_port()
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [
            *with_templates(),
            program,
            f"--config.file={file}",
            f"--storage.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    running = Alertmanager(port)
    try:
        wait(lambda: _ready(running) or process.poll() is not None, 30)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield running
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


@pytest.fixture
def alertmanager(running: Alertmanager) -> Alertmanager:
    running.clear()
    return running


def _ready(running: Alertmanager) -> bool:
    try:
        running.ask("/-/ready")
    except httpx.HTTPError:
        return False
    return True


def wait(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


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
            "JobDown", "PipelineStalled", "ProbeFailing", "SparkNoExecutor", "BatchesSlow", "KafkaPartitionsOffline",
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
        ("ServiceAway@spark-worker", {"SparkNoExecutor", "PipelineStalled", "JobDown", *PIPELINE}, {
            "ApiDown", "SparkWorkerDown", "UnitFlapping"}),
        ("SparkWorkerDown@b", set(), {"JobDown", "PipelineStalled", "SparkNoExecutor", *PIPELINE}),
        ("ServiceAway@job", {"PipelineStalled", "ProbeFailing", "SparkNoExecutor", *PIPELINE}, {
            "JobDown", "ApiDown", "LatencyBudgetBurning/page"}),
        ("JobDown", {"UnitFlapping"}, {"UnitFailed@b"}),
        ("ServiceAway@api", {"ApiErrorRateHigh", "ProbeFailing", *(PAGES - {"CompletenessBudgetBurning/page"})}, {
            "ApiDown", "PipelineStalled", "CompletenessBudgetBurning/page"}),
        ("ApiDown@b", {"ApiErrorRateHigh@b"}, {"ApiErrorRateHigh", "ProbeFailing", *PAGES}),
        ("ApiErrorRateHigh", {"ProbeFailing", *(PAGES - {"CompletenessBudgetBurning/page"})}, {"PipelineStalled"}),
        ("PipelineStalled", {"BatchesSlow", "ProbeFailing", *PIPELINE}, {"AvailabilityBudgetBurning/page"}),
        # The outage ends, and its consequences a little later.
        ("OutageJustOver@postgres", {"ApiErrorRateHigh", "JobDown", "PipelineStalled", "SparkNoExecutor"}, {
            "UnitFlapping", "ProbeFailing", "KafkaDown", "SparkWorkerDown", "PostgresDown", *PAGES}),
        ("OutageLatelyOver@postgres", {"UnitFlapping", "UnitFailed", "ProbeFailing", "BatchesSlow"}, {
            "ApiErrorRateHigh", "JobDown", "PipelineStalled"}),
        ("OutageJustOver@kafka", {"JobDown", "PipelineStalled", "SparkNoExecutor", "KafkaPartitionsOffline"}, {
            "ApiErrorRateHigh", "KafkaDown", "ProbeFailing"}),
        ("OutageJustOver@spark-master", {"SparkWorkerDown", "JobDown", "PipelineStalled"}, {"SparkMasterDown"}),
        ("OutageJustOver@job", {"PipelineStalled", "SparkNoExecutor"}, {"JobDown", "BatchesSlow", "ProbeFailing"}),
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
