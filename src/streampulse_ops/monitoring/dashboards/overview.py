"""Overview: is it healthy, and can I trust the numbers. Everything else is one step further down."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring import rules
from streampulse_ops.monitoring.dashboards import panels, pipeline
from streampulse_ops.monitoring.dashboards.panels import VALUES

#: The dashboard that says more about a service; all others are on their host's.
_MORE: Final = {
    "kafka": "kafka",
    "spark-master|spark-worker": "spark",
    "postgres": "postgres",
    "job|generator|probe": "pipeline",
    "api": "api",
}
# PostgreSQL answers no scrape: its exporter says whether it could log in.
_UP: Final = '(min by (job, host) (up) or label_replace(min by (host) (pg_up), "job", "postgres", "", ""))'
_FIRING: Final = 'ALERTS{alertstate="firing", severity!="none"}'


def _services() -> str:
    """Return PromQL for the state of every service, each with the dashboard that says more about it."""
    expr = f'label_replace({_UP}, "dashboard", "host", "", "")'
    for jobs, name in _MORE.items():
        expr = f'label_replace({expr}, "dashboard", "{name}", "job", "{jobs}")'
    return expr


def _runbooks() -> list[dashboard.ValueMapping]:
    """Return what leads from an alert's name to its runbook's page."""
    pages = {rule.name: rule.runbook for rule in rules.alerts()}
    return panels.texts({name: (page, None) for name, page in sorted(pages.items())})


def _firing() -> panels.Panel:
    return panels.table(
        2,
        "Firing alerts",
        """What fires now, pages first. Symptoms say that users notice something; causes say why. Some may be
        inhibited, which means that another alert explains them: then nobody is told. The last column leads to what
        to do.""",
        panels.NO_UNIT,
        panels.rows(
            f"sort_desc(label_replace(max by (alertname, severity, service, host) ({_FIRING}),"
            ' "runbook", "$1", "alertname", "(.+)"))'
        ),
        columns={
            "severity": "severity",
            "alertname": "alert",
            "service": "service",
            "host": "host",
            "runbook": "what to do",
        },
        overrides={
            "severity": [
                panels.COLOURED,
                ("mappings", panels.texts({"page": ("page", panels.BAD), "ticket": ("ticket", panels.WARN)})),
            ],
            "what to do": [
                ("mappings", _runbooks()),
                ("links", [_link("Runbook", f"{panels.RUNBOOKS}/${{__value.text}}.html", blank=True)]),
            ],
            "host": [("links", [_link("Host", _to("host", "${__value.raw}"))])],
        },
        sort="severity",
        nothing="Nothing fires.",
        span=14,
        height=9,
    )


def _link(title: str, url: str, blank: bool = False) -> dict[str, object]:
    return {"title": title, "url": url, "targetBlank": blank}


def _to(name: str, host: str) -> str:
    return f"/d/streampulse-{name}?${{environment:queryparam}}&${{__url_time_range}}&var-host={host}"


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    healthy = [
        panels.figure(
            3,
            "Services down",
            "Services that do not answer, of all that should. 0 is healthy.",
            panels.COUNT,
            panels.now(f"sum({_UP} == bool 0)"),
            steps=panels.above(bad=1),
            nothing="not known",
        ),
        panels.figure(
            4,
            "Pages firing",
            "Alerts that wake somebody: users notice, or soon will. 0 is healthy.",
            panels.COUNT,
            panels.now('count(ALERTS{alertstate="firing", severity="page"}) or vector(0)'),
            steps=panels.above(bad=1),
        ),
        panels.figure(
            5,
            "Tickets firing",
            "Alerts for working hours.",
            panels.COUNT,
            panels.now('count(ALERTS{alertstate="firing", severity="ticket"}) or vector(0)'),
            steps=panels.above(warn=1),
        ),
        panels.figure(
            6,
            "Alerting works",
            """1 while Prometheus evaluates rules: the alert Watchdog always fires. Its receiver notices when it
            stops; so does this figure.""",
            panels.NO_UNIT,
            panels.now('count(ALERTS{alertname="Watchdog", alertstate="firing"}) or vector(0)'),
            steps=panels.below(bad=1),
            mappings=panels.texts({"0": ("NO", panels.BAD), "1": ("yes", panels.GOOD)}),
        ),
        panels.figure(
            7,
            "Events",
            "Events a second that were counted, over the last five minutes.",
            panels.EVENTS_PER_SECOND,
            panels.now("sum(rate(streampulse_job_accepted_events_total[5m]))"),
            links=[panels.down("pipeline")],
        ),
        panels.figure(
            8,
            "Requests",
            "Requests a second that the API answered, over the last five minutes.",
            panels.REQUESTS_PER_SECOND,
            panels.now("sum(rate(streampulse_api_http_requests_total[5m]))"),
            links=[panels.down("api")],
        ),
    ]
    services = [
        panels.table(
            1,
            "Services",
            """Every service on every host, and whether it answers its scrape; for PostgreSQL, whether its exporter
            can log in. A service leads to its dashboard, a host to its own.""",
            panels.NO_UNIT,
            panels.rows(_services()),
            columns={"job": "service", "host": "host", "Value": "state", "dashboard": "dashboard"},
            overrides={
                "state": [panels.COLOURED, ("mappings", panels.UP_OR_DOWN)],
                "host": [("links", [_link("Host", _to("host", "${__value.raw}"))])],
                "dashboard": [("links", [_link("More", _to("${__value.raw}", "${__data.fields.host}"))])],
            },
            sort="state",
            span=10,
            height=9,
            nothing="Prometheus knows no services.",
        ),
        _firing(),
    ]
    trust = [
        pipeline.lag(20),
        pipeline.freshness(21),
        panels.figure(
            22,
            "Probe exact",
            f"""Of the probe's events of the last {pipeline.PROBE_WINDOW.removesuffix("m")} minutes, the share whose
            row in the API was exactly right. Less than all: somewhere between the sender and the API a number is
            wrong, late or lost.""",
            panels.RATIO,
            panels.now(
                f'sum(increase(streampulse_probe_events_total{{outcome="exact"}}[{pipeline.PROBE_WINDOW}]))'
                f" / sum(increase(streampulse_probe_events_total[{pipeline.PROBE_WINDOW}]))"
            ),
            steps=panels.below(bad=VALUES.objectives.correctness.indicators.probe.objective),
            nothing="not known",
            links=[panels.runbook("ProbeFailing")],
        ),
        panels.figure(
            23,
            "Last exact answer",
            "When the probe last saw exactly its own event in the API: a minute ago, when all is well.",
            panels.SECONDS,
            panels.now("time() - max(streampulse_probe_last_exact_timestamp_seconds)"),
            nothing="not known",
            decimals=0,
            links=[panels.runbook("ProbeFailing")],
        ),
        panels.figure(
            24,
            "Dead letters",
            "Share of records of the last hour that do not count: not valid, too late, or from the future.",
            panels.RATIO,
            panels.now(
                "(sum(increase(streampulse_job_dead_letters_total[1h])) or vector(0))"
                " / sum(increase(streampulse_job_records_total[1h]))"
            ),
            steps=panels.above(warn=VALUES.limits.dead_letters_growing.value),
            nothing="not known",
            decimals=2,
            links=[panels.runbook("DeadLettersGrowing")],
        ),
        panels.figure(
            25,
            "API errors",
            "Share of requests of the last five minutes that the API answered with a 5xx status.",
            panels.RATIO,
            panels.now(
                f'(sum(rate(streampulse_api_http_requests_total{{{panels.PEOPLE}, status=~"5.."}}[5m])) or vector(0))'
                f" / sum(rate(streampulse_api_http_requests_total{{{panels.PEOPLE}}}[5m]))"
            ),
            steps=panels.above(bad=VALUES.limits.api_error_rate.value),
            nothing="not known",
            decimals=2,
            links=[panels.runbook("ApiErrorRateHigh")],
        ),
    ]
    promises = [
        panels.figure(
            30,
            "Error budget left, of 30 days",
            """What each promise still allows: 100 % is untouched, 0 % is all spent, less is overspent. Spent budget
            is a reason to make things safer before making them different.""",
            panels.RATIO,
            panels.now("slo:error_budget_remaining:ratio30d", "{{slo}}"),
            steps=panels.below(bad=0),
            names=True,
            decimals=1,
            nothing="not known",
            span=12,
            height=6,
        ),
        panels.table(
            31,
            "Promises",
            "What was kept over 30 days, or since there are figures, beside what is promised.",
            panels.RATIO,
            panels.rows("1 - slo:error_ratio:rate30d"),
            panels.rows("slo:objective:ratio"),
            columns={"slo": "promise", "Value #A": "kept", "Value #B": "promised"},
            overrides={"kept": [("decimals", 3)], "promised": [("decimals", 1)]},
            sort="promise",
            nothing="Nothing was recorded yet.",
            span=12,
            height=6,
        ),
        panels.graph(
            32,
            "How quickly the budgets are spent",
            f"""1 is a rate that spends exactly the whole budget in 30 days, over the last hour. The dashed line,
            {VALUES.burns[0].factor:g}, is where somebody is woken when it also lasts.""",
            panels.COUNT,
            panels.series("slo:burn_rate:rate1h", "{{slo}}"),
            steps=panels.above(bad=VALUES.burns[0].factor),
            span=12,
        ),
        panels.graph(
            33,
            "Error budget left",
            "As above, over time. A line that falls is a budget that is being spent; below 0 % it is overspent.",
            panels.RATIO,
            panels.series("slo:error_budget_remaining:ratio30d", "{{slo}}"),
            least=None,
            span=12,
        ),
    ]
    return panels.board(
        "overview",
        "At one glance: is everything healthy, and can the numbers be trusted. Every figure leads further down.",
        [panels.environment()],
        [
            ("Is it healthy", healthy),
            ("Services and alerts", services),
            ("Can I trust the numbers", trust),
            ("Promises", promises),
        ],
    )
