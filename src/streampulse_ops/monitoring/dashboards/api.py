"""API: requests, errors and durations, and the readings of the tables that the answers come from."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring.dashboards import panels
from streampulse_ops.monitoring.dashboards.panels import VALUES

_HOST = '{host=~"$host"}'
_REQUESTS = 'streampulse_api_http_requests_total{host=~"$host"}'
# What machines ask says nothing about how people are served; /live lasts as long as its reader stays. The promises and
# the alerts leave the same routes out.
_PEOPLES = f'host=~"$host", {panels.PEOPLE}'
_ERROR_RATIO = (
    f'(sum(rate(streampulse_api_http_requests_total{{{_PEOPLES}, status=~"5.."}}[%s])) or vector(0))'
    f" / sum(rate(streampulse_api_http_requests_total{{{_PEOPLES}}}[%s]))"
)
_TIMED = f'host=~"$host", {panels.TIMED}'
_BUCKETS = f"streampulse_api_http_request_duration_seconds_bucket{{{_TIMED}}}"


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    glance = [
        panels.up(
            1,
            "Up",
            "Whether each of the API's hosts answers the scrape. DOWN on one of several hosts: the others still serve.",
            'up{job="api", host=~"$host"}',
            "ApiDown",
        ),
        panels.figure(
            2,
            "Requests",
            "Requests a second over the last five minutes, all routes.",
            panels.REQUESTS_PER_SECOND,
            panels.now(f"sum(rate({_REQUESTS}[5m]))"),
        ),
        panels.figure(
            3,
            "Errors",
            """Share of requests of the last five minutes that the API answered with a 5xx status of its own. Red is
            where the alert ApiErrorRateHigh fires.""",
            panels.RATIO,
            panels.now(_ERROR_RATIO % ("5m", "5m")),
            steps=panels.above(bad=VALUES.limits.api_error_rate.value),
            decimals=2,
            links=[panels.runbook("ApiErrorRateHigh")],
        ),
        panels.figure(
            4,
            "Quick enough",
            f"""Share of requests of the last five minutes that were answered within {VALUES.quick_seconds * 1000:g}
            ms, as the API times them: what the objective for latency counts beside the probe's own requests.""",
            panels.RATIO,
            panels.now(
                "sum(rate(streampulse_api_http_request_duration_seconds_bucket"
                f'{{{_TIMED}, le="{VALUES.quick_seconds:g}"}}[5m]))'
                f" / sum(rate(streampulse_api_http_request_duration_seconds_count{{{_TIMED}}}[5m]))"
            ),
            steps=panels.below(bad=VALUES.objectives.latency.indicators.api.objective),
            decimals=2,
        ),
        panels.figure(
            5,
            "Age of the reading",
            """How old the API's reading of the tables is, of the oldest worker. Readings are four a second; seconds
            mean that PostgreSQL does not answer, and answers are marked as stale.""",
            panels.SECONDS,
            panels.now(f"max(time() - streampulse_api_snapshot_timestamp_seconds{_HOST})"),
            decimals=1,
        ),
        panels.figure(
            6,
            "Readers of /live",
            "Browsers and programs that are connected to the live stream now.",
            panels.COUNT,
            panels.now(f"sum(streampulse_api_live_readers{_HOST})"),
        ),
    ]
    requests = [
        panels.graph(
            10,
            "Requests by route",
            "Requests a second, those that failed included.",
            panels.REQUESTS_PER_SECOND,
            panels.series(f"sum by (route) (rate({_REQUESTS}[$__rate_interval]))", "{{route}}"),
            stacked=True,
        ),
        panels.graph(
            11,
            "Requests by status",
            """Requests a second. 5xx are the API's own failures; 401, 403, 413 and 429 are requests that were not let
            in; other 4xx are wrong requests.""",
            panels.REQUESTS_PER_SECOND,
            panels.series(f"sum by (status) (rate({_REQUESTS}[$__rate_interval]))", "{{status}}"),
            stacked=True,
        ),
        panels.graph(
            12,
            "Share of errors",
            "5xx by all requests. The dashed line is where the alert ApiErrorRateHigh fires.",
            panels.RATIO,
            panels.series(_ERROR_RATIO % ("$__rate_interval", "$__rate_interval"), "5xx"),
            steps=panels.above(bad=VALUES.limits.api_error_rate.value),
            links=[panels.runbook("ApiErrorRateHigh")],
        ),
        panels.graph(
            13,
            "Duration",
            """Time from where a request is worked on to its answer's last byte, without /live, /health and /prometheus:
            not how long it waited. The dashed line is what the objective allows for 99 of 100.""",
            panels.SECONDS,
            panels.series(panels.quantile(0.5, _BUCKETS), "p50"),
            panels.series(panels.quantile(0.95, _BUCKETS), "p95"),
            panels.series(panels.quantile(0.99, _BUCKETS), "p99"),
            steps=panels.above(bad=VALUES.quick_seconds),
        ),
        panels.graph(
            14,
            "Duration by route, p95",
            "The slowest 5 of 100 take at least this long. Routes that read from memory take a millisecond or two.",
            panels.SECONDS,
            panels.series(panels.quantile(0.95, _BUCKETS, by="route"), "{{route}}"),
        ),
        panels.graph(
            15,
            "Seen from outside",
            """The probe's own requests, one every five seconds: how many were answered (ok), refused (4xx), failed
            (error), or not answered at all. The last two are what the objective for availability counts beside the
            API's own 5xx.""",
            panels.REQUESTS_PER_SECOND,
            panels.series(
                "sum by (outcome) (rate(streampulse_probe_api_requests_total[$__rate_interval]))", "{{outcome}}"
            ),
            stacked=True,
        ),
        panels.graph(
            16,
            "Duration seen from outside",
            """Time that the probe's own requests took, connecting included; the objective for latency counts these
            too. Much more than inside: the network, or requests that wait until a busy API reads them.""",
            panels.SECONDS,
            panels.series(
                panels.quantile(0.5, "streampulse_probe_api_request_duration_seconds_bucket", window="5m"), "p50"
            ),
            panels.series(
                panels.quantile(0.95, "streampulse_probe_api_request_duration_seconds_bucket", window="5m"), "p95"
            ),
            steps=panels.above(bad=VALUES.quick_seconds),
        ),
    ]
    refused = [
        panels.graph(
            20,
            "Not let in",
            """Requests a second that the guard refused: key (none, or a wrong one), rate (too many), private (from
            outside), size (too large). None on an API that is not public.""",
            panels.REQUESTS_PER_SECOND,
            panels.series(
                f"sum by (reason) (rate(streampulse_api_refused_total{_HOST}[$__rate_interval]))", "{{reason}}"
            ),
        ),
        panels.graph(
            21,
            "Readers of /live",
            """Connected readers, and how many were refused since there were too many, or cut off since they took
            nothing.""",
            panels.COUNT,
            panels.series(f"sum(streampulse_api_live_readers{_HOST})", "connected"),
            panels.series(f"sum(increase(streampulse_api_live_refused_total{_HOST}[$__rate_interval]))", "refused"),
            panels.series(f"sum(increase(streampulse_api_live_cut_off_total{_HOST}[$__rate_interval]))", "cut off"),
        ),
        panels.graph(
            22,
            "Lines left out of the access log",
            "Requests a second without a line in the journal: ordinary answers are sampled when there are many.",
            panels.REQUESTS_PER_SECOND,
            panels.series(
                f"sum(rate(streampulse_api_access_lines_left_out_total{_HOST}[$__rate_interval]))", "left out"
            ),
        ),
    ]
    reading = [
        panels.graph(
            30,
            "Readings of the tables",
            """Readings a second by outcome: changed, unchanged (nothing was written since), failed. Failed ones mean
            that PostgreSQL does not answer.""",
            panels.OPERATIONS_PER_SECOND,
            panels.series(
                f"sum by (outcome) (rate(streampulse_api_snapshot_readings_total{_HOST}[$__rate_interval]))",
                "{{outcome}}",
            ),
            stacked=True,
            links=[panels.down("postgres")],
        ),
        panels.graph(
            31,
            "Duration of a reading",
            """How long a reading of the tables takes. Longer than a quarter of a second: readings no longer keep
            their pace.""",
            panels.SECONDS,
            panels.series(panels.quantile(0.5, f"streampulse_api_snapshot_reading_seconds_bucket{_HOST}"), "p50"),
            panels.series(panels.quantile(0.95, f"streampulse_api_snapshot_reading_seconds_bucket{_HOST}"), "p95"),
        ),
        panels.graph(
            36,
            "Age of the reading",
            """How old the reading is now, and how old it was when the next one was due, of the oldest worker. The
            second is a quarter of a second while readings keep their pace.""",
            panels.SECONDS,
            panels.series(f"max(time() - streampulse_api_snapshot_timestamp_seconds{_HOST})", "now"),
            panels.series(f"max(streampulse_api_snapshot_age_seconds{_HOST})", "when the next was due"),
        ),
        panels.graph(
            32,
            "Rows in memory",
            "Rows of windows that each worker holds. It grows with the number of streams, up to a bound.",
            panels.COUNT,
            panels.series(f"streampulse_api_snapshot_rows{_HOST}", "{{host}}"),
        ),
        panels.graph(
            33,
            "Connections for queries",
            """What does not come from memory is asked of PostgreSQL over these connections. Waiting queries for long:
            the pool is too small, or queries are slow.""",
            panels.COUNT,
            panels.series(f"sum(streampulse_api_pool_size{_HOST})", "at most"),
            panels.series(f"sum(streampulse_api_pool_busy{_HOST})", "busy"),
            panels.series(f"sum(streampulse_api_pool_waiting{_HOST})", "queries that wait"),
            links=[panels.down("postgres")],
        ),
        panels.graph(
            34,
            "Failures of the database",
            "Requests a second that PostgreSQL could not answer, by cause. None on a healthy API.",
            panels.REQUESTS_PER_SECOND,
            panels.series(
                f"sum by (cause) (rate(streampulse_api_database_failures_total{_HOST}[$__rate_interval]))", "{{cause}}"
            ),
        ),
        panels.graph(
            35,
            "Version",
            "The release that each host runs. Two at once for long: a deploy has stopped half way.",
            panels.COUNT,
            panels.series(f"sum by (host, version) (streampulse_api_build_info{_HOST})", "{{host}} {{version}}"),
            decimals=0,
        ),
    ]
    return panels.board(
        "api",
        "Whether the API answers, how quickly, with what, and where its answers come from.",
        [panels.environment(), panels.host('up{job="api"}')],
        [
            ("At a glance", glance),
            ("Requests", requests),
            ("Guard, live stream, log", refused),
            ("Where the answers come from", reading),
        ],
    )
