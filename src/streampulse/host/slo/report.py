"""The report at a glance: objectives and budgets, firing alerts, lag, targets that are down."""

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from streampulse.core.errors import OperatorError
from streampulse.host.slo.server import Alertmanager, Prometheus, Sample

#: The windows over which an objective is shown.
WINDOWS: Final = ("5m", "1h", "1d", "30d")
#: The alert that always fires. If it is missing, no other alert arrives either.
DEAD_MAN: Final = "Watchdog"
#: Maximum time after a start until alerts have arrived in Alertmanager and the objectives are recorded.
_SETTLES_SECONDS: Final = 120
#: The objectives in the order of the documentation (prometheus/values.yml).
ORDER: Final = ("freshness", "correctness", "availability", "latency", "completeness")
SEVERITIES: Final = ("page", "ticket")
#: Each figure in PromQL: one value without labels, or none while it is unknown.
FIGURES: Final[Mapping[str, str]] = {
    "lag_seconds": "max(streampulse_pipeline_lag_seconds)",
    "lag_records": "sum(streampulse_pipeline_lag_records)",
    "commit_age_seconds": "time() - max(streampulse_pipeline_last_commit_timestamp_seconds)",
    "exact_age_seconds": "time() - max(streampulse_probe_last_exact_timestamp_seconds)",
    "snapshot_age_seconds": "max(streampulse_api_snapshot_age_seconds)",
    "arriving_per_second": "sum(rate(streampulse_pipeline_end_offset[1m]))",
    "counted_per_second": "sum(rate(streampulse_job_records_total[1m]))",
    # A counter without an event has no series; report zero.
    "dead_letters_per_minute": (
        "(sum(rate(streampulse_job_dead_letters_total[5m])) or sum(rate(streampulse_job_records_total[5m])) * 0) * 60"
    ),
    # Only the requests that the objectives count: at rest most others are scrapes and machine probes.
    "requests_per_second": 'sum(rate(streampulse_api_http_requests_total{route!~"/health|/prometheus"}[1m]))',
    # A client of /live stays connected, so its duration is not a response time.
    "request_p99_seconds": (
        "histogram_quantile(0.99, sum by (le) (rate("
        'streampulse_api_http_request_duration_seconds_bucket{route!~"/health|/prometheus|/live"}[5m])))'
    ),
}
#: Computed here, from the newest event of the probe.
END_TO_END: Final = "end_to_end_seconds"
_END_TO_END: Final = "streampulse_probe_end_to_end_seconds"


@dataclass(frozen=True)
class Promise:
    """One objective: the target share, the measured share by window, and the rest of the 30-day budget.

    A share or a budget is None without measurements. A budget of 1 is untouched, one below 0 overspent.
    """

    name: str
    objective: float
    good: dict[str, float | None]
    budget_remaining: float | None


@dataclass(frozen=True)
class Firing:
    """One firing alert. A silence or another alert may suppress it."""

    name: str
    severity: str
    service: str
    host: str
    slo: str
    since: float
    summary: str
    runbook: str
    silenced: bool
    inhibited: bool

    @property
    def pages(self) -> bool:
        """Whether it pages: severity page, not silenced, not inhibited."""
        return self.severity == "page" and not self.silenced and not self.inhibited


@dataclass(frozen=True)
class Target:
    """One target of Prometheus; ``error`` says why the last scrape failed."""

    job: str
    host: str
    address: str
    up: bool
    error: str


@dataclass(frozen=True)
class Report:
    """The state at one moment, ``time``, in seconds since the epoch on the monitoring host."""

    time: float
    promises: list[Promise]
    alerts: list[Firing]
    figures: dict[str, float | None]
    targets: list[Target]
    #: Unanswered questions, each with the command that helps.
    problems: list[str]

    def document(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)

    @staticmethod
    def read(document: Any) -> "Report":
        """Read a report from JSON.

        :raises OperatorError: the document is another release's.
        """
        try:
            return Report(
                float(document["time"]),
                [Promise(**item) for item in document["promises"]],
                [Firing(**item) for item in document["alerts"]],
                dict(document["figures"]),
                [Target(**item) for item in document["targets"]],
                list(document["problems"]),
            )
        except (KeyError, TypeError, ValueError):
            raise OperatorError("the host has another release than this checkout: inv up --full") from None


def collect(prometheus: Prometheus, alertmanager: Alertmanager) -> Report:
    """Ask both servers and return the report. Without Alertmanager, the alerts are Prometheus' own, without silences.

    :raises OperatorError: Prometheus does not answer.
    """
    problems: list[str] = []
    (now,) = prometheus.query("vector(time())")
    recorded = prometheus.query('{__name__=~"slo:(objective:ratio|error_ratio:.+|error_budget_remaining:ratio30d)"}')
    figures = figures_of(prometheus.query(_joined(FIGURES)))
    figures[END_TO_END] = newest_mean(
        *([numbers for _, numbers in prometheus.history(f"{_END_TO_END}_{part}[5m]")] for part in ("sum", "count"))
    )
    targets = targets_of(prometheus.targets())
    try:
        held = alertmanager.alerts()
        alerts = [_held(item) for item in held]
        if not any(alert.name == DEAD_MAN for alert in alerts) and not _has_just_started(prometheus, now.value or 0.0):
            problems.append(
                f"{DEAD_MAN}, which always fires, is not in Alertmanager: no other alert arrives there either: "
                "inv logs prometheus"
            )
    except OperatorError as error:
        problems.append(f"whether alerts are silenced is not known: {error}")
        alerts = [_found(item) for item in prometheus.alerts() if item.get("state") == "firing"]
    promises = promises_of(recorded)
    if not promises and not _has_just_started(prometheus, now.value or 0.0):
        problems.append("Prometheus records no promise: its rules are missing or new: inv logs prometheus")
    return Report(now.value or 0.0, promises, ordered(alerts), figures, targets, problems)


def history(prometheus: Prometheus, seconds: int) -> list[dict[str, Any]]:
    """Return the figures, promises, targets and alerts over the last seconds, in at most 241 points a series.

    :raises OperatorError: Prometheus does not answer.
    """
    step = max(15, seconds // 240)
    expressions = (_joined(FIGURES), "up", "ALERTS", '{__name__=~"slo:error_budget_remaining:ratio30d"}')
    return [
        {"labels": dict(labels), "values": values}
        for expression in expressions
        for labels, values in prometheus.between(expression, seconds, step)
    ]


def _has_just_started(prometheus: Prometheus, now: float) -> bool:
    """Return whether the dead man's switch began to fire so recently that other data may still be missing."""
    fired = [_found(item).since for item in prometheus.alerts() if item["labels"].get("alertname") == DEAD_MAN]
    return bool(fired) and now - max(fired) < _SETTLES_SECONDS


def promises_of(samples: Iterable[Sample]) -> list[Promise]:
    """Return the recorded objectives, in the order of the documentation."""
    objectives: dict[str, float] = {}
    bad: dict[tuple[str, str], float | None] = {}
    budgets: dict[str, float | None] = {}
    for labels, value in samples:
        series, name = labels["__name__"], labels.get("slo", "")
        if series == "slo:objective:ratio" and value is not None:
            objectives[name] = value
        elif series.startswith("slo:error_ratio:rate"):
            bad[name, series.removeprefix("slo:error_ratio:rate")] = value
        elif series == "slo:error_budget_remaining:ratio30d":
            budgets[name] = value
    return [
        Promise(
            name, objectives[name], {window: _good(bad.get((name, window))) for window in WINDOWS}, budgets.get(name)
        )
        for name in sorted(objectives, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    ]


def figures_of(samples: Iterable[Sample]) -> dict[str, float | None]:
    """Return every figure by name, None while it is unknown."""
    found = {labels["figure"]: value for labels, value in samples}
    return {name: found.get(name) for name in FIGURES}


def newest_mean(sums: Sequence[Sequence[float]], counts: Sequence[Sequence[float]]) -> float | None:
    """Return the mean of the newest observations of a histogram, None without any.

    :param sums: values of one series, the oldest first; for several series or none the result is None.
    :param counts: the same for the number of observations.
    """
    if len(sums) != 1 or len(counts) != 1 or len(sums[0]) != len(counts[0]):
        return None
    totals, numbers = sums[0], counts[0]
    for index in range(len(numbers) - 1, 0, -1):
        more = numbers[index] - numbers[index - 1]
        if more > 0:
            return (totals[index] - totals[index - 1]) / more
    return None


def targets_of(found: Iterable[Mapping[str, Any]]) -> list[Target]:
    """Return the targets, those down first."""
    targets = [
        Target(
            str(item["labels"].get("job", "")),
            str(item["labels"].get("host", "")),
            str(item["labels"].get("instance", "")),
            item.get("health") == "up",
            " ".join(str(item.get("lastError", "")).split()) or ("" if item.get("health") == "up" else "not asked yet"),
        )
        for item in found
    ]
    return sorted(targets, key=lambda target: (target.up, target.job, target.host))


def ordered(alerts: Iterable[Firing]) -> list[Firing]:
    """Return the alerts that notify people: pages first, then by severity and time.

    Alerts of severity ``none`` are inhibitors or the dead man's switch, ``info`` is no fault; both are left out.
    """
    told = [alert for alert in alerts if alert.severity not in ("none", "info")]
    rank = {severity: place for place, severity in enumerate(SEVERITIES)}
    return sorted(
        told,
        key=lambda alert: (not alert.pages, rank.get(alert.severity, len(rank)), alert.since, alert.name, alert.host),
    )


def percent(share: float | None) -> str:
    """Return a share as a percentage. A share below one is never rounded up to 100 %."""
    if share is None:
        return "no data"
    digits = 0 if share in (0, 1) else 1 if not 0.99 <= share < 1 else 2 if share < 0.999 else 3
    shown = math.floor(share * 100 * 10**digits + 1e-6) / 10**digits
    return f"{shown:.{digits}f} %"


def _held(item: Mapping[str, Any]) -> Firing:
    """Parse an alert of Alertmanager."""
    status = item.get("status") or {}
    return _firing(item, str(item["startsAt"]), bool(status.get("silencedBy")), bool(status.get("inhibitedBy")))


def _found(item: Mapping[str, Any]) -> Firing:
    """Parse an alert of Prometheus, which has no silences."""
    return _firing(item, str(item["activeAt"]), silenced=False, inhibited=False)


def _firing(item: Mapping[str, Any], since: str, silenced: bool, inhibited: bool) -> Firing:
    labels, annotations = item["labels"], item.get("annotations") or {}
    return Firing(
        str(labels.get("alertname", "")),
        str(labels.get("severity", "")),
        str(labels.get("service", "")),
        str(labels.get("host", "")),
        str(labels.get("slo", "")),
        datetime.datetime.fromisoformat(since).timestamp(),
        str(annotations.get("summary", "")),
        str(annotations.get("runbook_url", "")),
        silenced,
        inhibited,
    )


def _good(bad: float | None) -> float | None:
    return None if bad is None else 1 - bad


def _joined(expressions: Mapping[str, str]) -> str:
    """Return one expression that unites all series, each with its name in the label ``figure``."""
    return "\nor\n".join(f'label_replace({text}, "figure", "{name}", "", "")' for name, text in expressions.items())
