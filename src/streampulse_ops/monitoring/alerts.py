"""The alerts: what is wrong, how bad it is, what people notice, and where to look.

Symptoms page, causes are tickets. Every limit comes from :mod:`streampulse.core.limits`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from streampulse.core import limits as values
from streampulse.core.limits import MINUTE, Threshold, shown, span, words
from streampulse_ops.monitoring.model import Alert, Group

PAGE: Final = "page"
TICKET: Final = "ticket"
NONE: Final = "none"

#: A host is down while all of its targets are. Its services alarm as well, and Alertmanager keeps them quiet: in their
#: turn they keep quiet what follows from them.
_HOST_DOWN: Final = "max by (host) (up) == 0"

#: Without file systems that hold no data of anybody's, and mount points that show a file system a second time.
DISKS: Final = 'fstype!~"tmpfs|ramfs|squashfs|iso9660|erofs|nsfs",mountpoint!~"/(dev|etc|proc|run|sys)(/.*)?"'

#: Of PostgreSQL's transactions, those that somebody has begun. Autovacuum takes its time by design; older exporters do
#: not name the kind of backend.
TRANSACTIONS: Final = 'state=~"active|idle in transaction.*",backend_type!~"autovacuum.*|walsender"'

#: Units as systemd spells them, and the service that people know; any other unit is the host's.
UNITS: Final[dict[str, str]] = {
    "kafka[.]service": "kafka",
    "spark-master[.]service": "spark-master",
    "spark-worker[.]service": "spark-worker",
    "postgresql(@.*)?[.]service": "postgres",
    "streampulse-job[.]service": "job",
    "streampulse-generator[.]service": "generator",
    "streampulse-api[.]service": "api",
    "streampulse-probe[.]service": "probe",
    "prometheus-node-exporter[.]service": "node-exporter",
    "prometheus-postgres-exporter[.]service": "postgres-exporter",
    "prometheus[.]service": "prometheus",
    "prometheus-alertmanager[.]service": "alertmanager",
    "grafana-server[.]service": "grafana",
}


@dataclass(frozen=True)
class _Down:
    """A service whose target does not answer."""

    name: str
    severity: str
    job: str
    called: str
    notice: str
    dashboard: str
    runbook: str


_DOWN: Final = (
    _Down(
        "KafkaDown",
        PAGE,
        "kafka",
        "Kafka",
        "Producers cannot send, and no new number appears: viewers, chat and donations stand still. Nothing that Kafka"
        " had acknowledged is lost.",
        "kafka",
        "kafka-down",
    ),
    _Down(
        "SparkMasterDown",
        PAGE,
        "spark-master",
        "Spark's master",
        "Numbers go on as long as the job runs, but a job or an executor that ends does not come back.",
        "spark",
        "spark-master-down",
    ),
    _Down(
        "SparkWorkerDown",
        PAGE,
        "spark-worker",
        "Spark's worker",
        "With its executor gone the job counts nothing: numbers stand still. Events wait in Kafka.",
        "spark",
        "spark-worker-down",
    ),
    _Down(
        "JobDown",
        PAGE,
        "job",
        "The streaming job",
        "Numbers stand still on the page and in the API. Events wait in Kafka and are counted when it is back.",
        "pipeline",
        "job-down",
    ),
    _Down(
        "ApiDown",
        PAGE,
        "api",
        "The API",
        "The page and the API do not answer on this host. Events are still counted.",
        "api",
        "api-down",
    ),
    _Down(
        "GeneratorDown",
        TICKET,
        "generator",
        "The generator",
        "No made-up events come. Real producers are not touched.",
        "pipeline",
        "generator-down",
    ),
    _Down(
        "ProbeDown",
        TICKET,
        "probe",
        "The probe",
        "Nothing for users. Freshness, completeness and half of availability, correctness and latency are not"
        " measured.",
        "overview",
        "probe-down",
    ),
    _Down(
        "NodeExporterDown",
        TICKET,
        "node-exporter",
        "The node exporter",
        "Nothing for users. Disk, memory, clock and units of the host are not watched.",
        "host",
        "exporter-down",
    ),
    _Down(
        "PostgresExporterDown",
        TICKET,
        "postgres-exporter",
        "The exporter of PostgreSQL",
        "Nothing for users. Whether PostgreSQL runs, its connections and its tables are not watched.",
        "postgres",
        "exporter-down",
    ),
    _Down(
        "PrometheusDown",
        TICKET,
        "prometheus",
        "Prometheus",
        "Nothing for users. Told by another Prometheus; a single one that is down is told by the dead man's switch.",
        "overview",
        "prometheus-down",
    ),
    _Down(
        "AlertmanagerDown",
        TICKET,
        "alertmanager",
        "Alertmanager",
        "Nothing for users, but alerts reach nobody unless another Alertmanager runs.",
        "overview",
        "alertmanager-down",
    ),
    _Down(
        "GrafanaDown",
        TICKET,
        "grafana",
        "Grafana",
        "Dashboards do not open. Alerts and `inv status --full` go on.",
        "overview",
        "grafana-down",
    ),
)
#: Of these one instance that runs is enough.
_ANY_IS_ENOUGH: Final = ("spark-master", "spark-worker", "job", "api")
#: Of this more than half must run: for its controllers to agree, and for a topic's replicas to be enough.
_MAJORITY: Final = "kafka"
#: What explains that others do not work: a host, and services that are away as a whole.
_EXPLAINS: Final = ("HostDown", "ServiceAway", "PostgresDown")
#: Every environment with monitoring has these; generator and Grafana are a matter of choice.
EXPECTED_JOBS: Final = (
    "node-exporter",
    "postgres-exporter",
    "kafka",
    "spark-master",
    "spark-worker",
    "job",
    "api",
    "probe",
    "prometheus",
    "alertmanager",
)


def groups() -> tuple[Group, ...]:
    """Return the alerts on symptoms and causes."""
    return (
        Group("watchdog", (_watchdog(),)),
        # What keeps others quiet comes before them.
        Group("services", (_host_down(), _service_away(), *(_service_down(each) for each in _DOWN), _postgres_down())),
        Group("over", _over()),
        Group("symptoms", (_pipeline_stalled(), _api_error_rate())),
        Group("kafka", _kafka()),
        Group("hosts", _hosts(), MINUTE // 2),
        Group("pipeline", _pipeline(), MINUTE // 2),
        Group("postgres", _postgres(), MINUTE // 2),
        Group("monitoring", _monitoring(), MINUTE // 2),
        Group("days", _days(), MINUTE),
    )


def promise_groups() -> tuple[Group, ...]:
    """Return the alerts on promises: budgets that are spent too quickly."""
    budgets = tuple(_budget(each, severity) for each in values.OBJECTIVES for severity in (PAGE, TICKET))
    return (Group("budgets", (_recent_outage(), *budgets), MINUTE // 2),)


def everything() -> tuple[Alert, ...]:
    """Return every alert."""
    return tuple(rule for group in (*groups(), *promise_groups()) for rule in group.rules if isinstance(rule, Alert))


# Up and down ----------------------------------------------------------------------------------------------------------


def _watchdog() -> Alert:
    return Alert(
        name="Watchdog",
        severity=NONE,
        service="prometheus",
        expr="vector(1)",
        hold_seconds=0,
        condition="always: whoever receives it knows that alerts arrive, and alarms when it stays away",
        summary="Alerts of this environment arrive",
        description="Always firing, by design: the dead man's switch. Users notice nothing.",
        runbook="watchdog",
        dashboard="overview",
        per_host=False,
    )


def _host_down() -> Alert:
    limit = values.HOST_DOWN
    hold = limit.hold_seconds
    return Alert(
        name="HostDown",
        severity=PAGE,
        service="host",
        expr=_HOST_DOWN,
        hold_seconds=hold,
        reason=limit.reason,
        condition=f"no target of a host has answered for {words(hold)}, the node exporter among them",
        summary=f"{{{{ $labels.host }}}} is down: none of its targets has answered for {words(hold)}",
        description="Everything that runs on this host is away. What users notice depends on it: no page and no API"
        " (group api), or numbers that stand still (all others).",
        runbook="host-down",
        dashboard="host",
    )


def _service_down(down: _Down) -> Alert:
    limit = values.SERVICE_DOWN
    hold = limit.hold_seconds
    expr, condition = f'up{{job="{down.job}"}} == 0', f"{down.called} has not answered Prometheus for {words(hold)}"
    if down.job == "node-exporter":
        # Of a host that is away this says nothing more.
        expr, condition = f"{expr}\nunless on (host)\n{_HOST_DOWN}", f"{condition}, while something of its host does"
    return Alert(
        name=down.name,
        severity=down.severity,
        service=down.job,
        expr=expr,
        hold_seconds=hold,
        reason=limit.reason,
        condition=condition,
        summary=f"{down.called} on {{{{ $labels.host }}}} has not answered for {words(hold)}",
        description=down.notice,
        runbook=down.runbook,
        dashboard=down.dashboard,
    )


def _service_away() -> Alert:
    limit = values.SERVICE_DOWN
    kafka = f'(up{{job="{_MAJORITY}"}})'
    return Alert(
        name="ServiceAway",
        severity=NONE,
        service="{{ $labels.job }}",
        expr=f'max by (job) (up{{job=~"{"|".join(_ANY_IS_ENOUGH)}"}}) == 0\nor\n'
        f"2 * sum by (job) {kafka} <= count by (job) {kafka}",
        # As long as that of each of its hosts, whose alert says it to people at the same time.
        hold_seconds=limit.hold_seconds,
        reason=limit.reason,
        condition=f"no host has answered for a service, or not more than half of Kafka's, for"
        f" {words(limit.hold_seconds)}: keeps quiet what follows from it, and is told to nobody",
        summary="{{ $labels.job }} is away: too few of its hosts answer",
        description="Nothing more than the alerts of its hosts have said. What follows from it is kept quiet. One host"
        " of several that is down keeps nothing quiet but its own.",
        runbook="watchdog",
        dashboard="overview",
        per_host=False,
    )


def _postgres_down() -> Alert:
    limit = values.SERVICE_DOWN
    hold = limit.hold_seconds
    return Alert(
        name="PostgresDown",
        severity=PAGE,
        service="postgres",
        # Its exporter says so; where the whole host is away, nobody is left to say it.
        expr='pg_up{job="postgres-exporter"} == 0\nor\nup{job="postgres-exporter"} == 0\nand on (host)\n' + _HOST_DOWN,
        hold_seconds=hold,
        reason=limit.reason,
        condition=f"PostgreSQL has not let its exporter in for {words(hold)}, or its host is away",
        summary=f"PostgreSQL on {{{{ $labels.host }}}} has not answered for {words(hold)}",
        description="Numbers stand still; after ten seconds the API answers with errors. Events wait in Kafka.",
        runbook="postgres-down",
        dashboard="postgres",
    )


def _over() -> tuple[Alert, ...]:
    lately = values.OUTAGE_LATELY_OVER_SECONDS
    return (
        _outage_over(
            "OutageJustOver",
            values.OUTAGE_JUST_OVER_SECONDS,
            "errors that are counted over minutes, and services that are not back yet",
        ),
        _outage_over("OutageLatelyOver", lately, "restarts and the probe's events, which are counted over longer"),
    )


def _outage_over(name: str, window: int, follows: str) -> Alert:
    return Alert(
        name=name,
        severity=NONE,
        service="{{ $labels.service }}",
        expr=f'max by (service, host) (\n  max_over_time(ALERTS{{alertname=~"{"|".join(_EXPLAINS)}",'
        f'alertstate="firing"}}[{span(window)}])\n)',
        hold_seconds=0,
        condition=f"a host or a service as a whole is away, or was within the last {words(window)}: keeps quiet what"
        f" still follows from it ({follows}), and is told to nobody",
        summary=f"{{{{ $labels.service }}}} is away, or was within the last {words(window)}",
        description="Nothing more than the page about it has said. What still follows from it is kept quiet.",
        runbook="watchdog",
        dashboard="overview",
        per_host=False,
    )


# Symptoms -------------------------------------------------------------------------------------------------------------


def _pipeline_stalled() -> Alert:
    limit = values.PIPELINE_STALLED
    return Alert(
        name="PipelineStalled",
        severity=PAGE,
        service="job",
        # The probe tells it, but it is no fault of the probe's host.
        expr=f"max(streampulse_pipeline_lag_seconds) > {limit.value:g}",
        hold_seconds=limit.hold_seconds,
        reason=limit.reason,
        condition=f"the oldest record that is not committed {_past(limit, 'is more than')}",
        summary="Events have waited for {{ $value | humanizeDuration }} without being counted",
        description="Numbers on the page and in the API are behind by that much. Events wait in Kafka; none is lost.",
        runbook="pipeline-stalled",
        dashboard="pipeline",
        per_host=False,
    )


def _api_error_rate() -> Alert:
    limit = values.API_ERROR_RATE
    window = span(limit.window_seconds)
    everything = f'streampulse_api_http_requests_total{{route!~"{values.MACHINES_ROUTES}"}}'
    failed = f'streampulse_api_http_requests_total{{route!~"{values.MACHINES_ROUTES}",status=~"5.."}}'
    return Alert(
        name="ApiErrorRateHigh",
        severity=PAGE,
        service="api",
        expr=f"sum by (host) (rate({failed}[{window}]))\n/\nsum by (host) (rate({everything}[{window}]))\n"
        f"> {limit.value:g}\n"
        f"and\nsum by (host) (increase({everything}[{window}])) >= {limit.minimum}",
        hold_seconds=limit.hold_seconds,
        reason=limit.reason,
        condition=f"the share of requests that the API answers with 5xx {_past(limit)}",
        summary="The API on {{ $labels.host }} answers {{ $value | humanizePercentage }} of requests with an error",
        description="People see errors on the page, or it stops moving; programs that read the API get 5xx.",
        runbook="api-error-rate-high",
        dashboard="api",
    )


def _past(limit: Threshold, verb: str = "is more than") -> str:
    """Return a threshold in words, after its subject."""
    over = f" over {words(limit.window_seconds)}" if limit.window_seconds else ""
    hold = f", for {words(limit.hold_seconds)}" if limit.hold_seconds else ""
    return f"{verb} {shown(limit.value, limit.unit)}{over}{hold}"


# Kafka ----------------------------------------------------------------------------------------------------------------


def _kafka() -> tuple[Alert, ...]:
    offline, under = values.PARTITIONS_OFFLINE, values.UNDER_REPLICATED
    return (
        Alert(
            name="KafkaPartitionsOffline",
            severity=PAGE,
            service="kafka",
            expr=f"kafka_controller_kafkacontroller_offlinepartitionscount > {offline.value:g}",
            hold_seconds=offline.hold_seconds,
            reason=offline.reason,
            condition=f"the number of partitions without a leader {_past(offline)}",
            summary="{{ $value }} partitions of Kafka have no leader, says {{ $labels.host }}",
            description="Events of the streams in these partitions cannot be sent, and their numbers stand still.",
            runbook="kafka-partitions",
            dashboard="kafka",
        ),
        Alert(
            name="KafkaUnderReplicated",
            severity=PAGE,
            service="kafka",
            expr=f"kafka_server_replicamanager_underreplicatedpartitions > {under.value:g}",
            hold_seconds=under.hold_seconds,
            reason=under.reason,
            condition=f"the number of a broker's partitions that lack a replica {_past(under)}",
            summary="{{ $value }} partitions led by {{ $labels.host }} lack a replica",
            description="Nothing yet. One more broker that fails stops the producers.",
            runbook="kafka-partitions",
            dashboard="kafka",
        ),
    )


# Hosts ----------------------------------------------------------------------------------------------------------------


def _hosts() -> tuple[Alert, ...]:
    disk, memory, clock = values.DISK_FULL, values.MEMORY_LOW, values.CLOCK_OFFSET
    failed, flapping = values.UNIT_FAILED, values.UNIT_FLAPPING
    disks = f"{{{DISKS}}}"
    return (
        Alert(
            name="DiskAlmostFull",
            severity=PAGE,
            service="host",
            # That a file system is read-only cannot be asked: seen from the exporter's hardened unit, all are.
            expr=f"1 -\nnode_filesystem_avail_bytes{disks}\n/\nnode_filesystem_size_bytes{disks}\n> {disk.value:g}",
            hold_seconds=disk.hold_seconds,
            reason=disk.reason,
            condition=f"what is used of a file system {_past(disk)}",
            summary="{{ $labels.mountpoint }} on {{ $labels.host }} is {{ $value | humanizePercentage }} full",
            description="Nothing yet. When it is full, Kafka and PostgreSQL on this host end: numbers stand still.",
            runbook="disk-almost-full",
            dashboard="host",
        ),
        Alert(
            name="MemoryLow",
            severity=TICKET,
            service="host",
            expr=f"node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < {memory.value:g}",
            hold_seconds=memory.hold_seconds,
            reason=memory.reason,
            condition=f"the memory that can still be had {_past(memory, 'is less than')}",
            summary="{{ $labels.host }} has {{ $value | humanizePercentage }} of its memory left",
            description="Nothing yet. The kernel may end a service at any moment; it comes back within seconds.",
            runbook="memory-low",
            dashboard="host",
        ),
        Alert(
            name="ClockOffset",
            severity=TICKET,
            service="host",
            # Against the clock of Prometheus' host, which works without any time service, in a container too; and what
            # the kernel itself knows of its error, where a time service tells it.
            expr=f"abs(timestamp(node_time_seconds) - node_time_seconds) > {clock.value:g}\n"
            f"or\nabs(node_timex_offset_seconds) > {clock.value:g} and node_timex_sync_status == 1",
            hold_seconds=clock.hold_seconds,
            reason=clock.reason,
            condition=f"by how much a host's clock differs from Prometheus' host, or from true time, {_past(clock)}",
            summary="The clock of {{ $labels.host }} is off by {{ $value | humanizeDuration }}",
            description="Lag and freshness are shown wrongly. Off by minutes, events are refused as late or as from the"
            " future, and numbers are too low.",
            runbook="clock-offset",
            dashboard="host",
        ),
        Alert(
            name="UnitFailed",
            severity=TICKET,
            service=_unit_service(),
            # Of ours the name is known; of all others their number is.
            expr=f'node_systemd_unit_state{{state="failed"}} == {failed.value:g}\nor on (host)\n'
            f'node_systemd_units{{state="failed"}} >= {failed.value:g}',
            hold_seconds=failed.hold_seconds,
            reason=failed.reason,
            condition=f"a unit has ended with an error and is not started again, for {words(failed.hold_seconds)}",
            summary="{{ with $labels.name }}{{ . }}{{ else }}Of the host's own units, {{ $value }}{{ end }} on"
            " {{ $labels.host }} failed",
            description="Depends on the unit; a service of ours that fails has an alert of its own.",
            runbook="unit-failed",
            dashboard="host",
        ),
        Alert(
            name="UnitFlapping",
            severity=TICKET,
            service=_unit_service(),
            expr=f"increase(node_systemd_service_restart_total[{span(flapping.window_seconds)}]) >= {flapping.value:g}",
            hold_seconds=flapping.hold_seconds,
            reason=flapping.reason,
            condition=f"a unit was started anew by systemd {shown(flapping.value, flapping.unit)} times within"
            f" {words(flapping.window_seconds)}, or more often",
            summary='{{ $labels.name }} on {{ $labels.host }} was restarted {{ $value | printf "%.0f" }} times within'
            f" {words(flapping.window_seconds)}",
            description="Short interruptions that come again: numbers that jump, or requests that fail now and then.",
            runbook="unit-failed",
            dashboard="host",
        ),
    )


def _unit_service() -> str:
    """Return a template that gives the service of a unit, so that what silences the service silences its unit."""
    cases = "{{ else ".join(f'if match "^{pattern}$" $labels.name }}}}{service}' for pattern, service in UNITS.items())
    return f"{{{{ {cases}{{{{ else }}}}host{{{{ end }}}}"


def service_of_unit(unit: str) -> str:
    """Return the service that a unit is, or ``host``: what the rules' template gives."""
    return next((service for pattern, service in UNITS.items() if re.fullmatch(pattern, unit)), "host")


# Pipeline -------------------------------------------------------------------------------------------------------------


def _pipeline() -> tuple[Alert, ...]:
    failing, letters = values.PROBE_FAILING, values.DEAD_LETTERS_GROWING
    executor, slow = values.NO_EXECUTOR, values.BATCHES_SLOW
    over = span(letters.window_seconds)
    return (
        Alert(
            name="ProbeFailing",
            severity=TICKET,
            service="probe",
            expr='sum by (host) (increase(streampulse_probe_events_total{outcome!="exact"}'
            f"[{span(failing.window_seconds)}])) >= {failing.value:g}",
            hold_seconds=failing.hold_seconds,
            reason=failing.reason,
            condition=f"the probe's own event did not come through exactly {shown(failing.value, failing.unit)} times"
            f" within {words(failing.window_seconds)}, or more often",
            summary='{{ $value | printf "%.0f" }} of the probe\'s events within'
            f" {words(failing.window_seconds)} did not come through exactly",
            description="What the probe sees, users see: events that are late, lost or counted wrongly.",
            runbook="probe-failing",
            dashboard="pipeline",
        ),
        Alert(
            name="DeadLettersGrowing",
            severity=TICKET,
            service="job",
            expr=f"sum by (host, reason) (rate(streampulse_job_dead_letters_total[{over}]))\n"
            f"/ on (host) group_left\nsum by (host) (rate(streampulse_job_records_total[{over}]))\n"
            f"> {letters.value:g}\nand\n"
            f"sum by (host, reason) (increase(streampulse_job_dead_letters_total[{over}])) >= {letters.minimum}",
            hold_seconds=letters.hold_seconds,
            reason=letters.reason,
            condition=f"the share of records that become dead letters for one reason {_past(letters)}, and these are at"
            f" least {letters.minimum}",
            summary="{{ $value | humanizePercentage }} of the records do not count: {{ $labels.reason }}",
            description="Numbers are too low by the events that do not count. Mostly one sender has changed what it"
            " sends.",
            runbook="dead-letters",
            dashboard="pipeline",
        ),
        Alert(
            name="SparkNoExecutor",
            severity=TICKET,
            service="job",
            expr=f"streampulse_job_executors <= {executor.value:g}",
            hold_seconds=executor.hold_seconds,
            reason=executor.reason,
            condition=f"the job has had no executor for {words(executor.hold_seconds)}",
            summary="The job on {{ $labels.host }} has no executor",
            description="Numbers stand still. Events wait in Kafka.",
            runbook="spark-worker-down",
            dashboard="spark",
        ),
        Alert(
            name="BatchesSlow",
            severity=TICKET,
            service="job",
            expr="sum by (host) (rate(streampulse_job_batch_phase_seconds_sum"
            f"[{span(slow.window_seconds)}]))\n/\n"
            'sum by (host) (rate(streampulse_job_batch_phase_seconds_count{phase="commit"}'
            f"[{span(slow.window_seconds)}]))\n> {slow.value:g}",
            hold_seconds=slow.hold_seconds,
            reason=slow.reason,
            condition=f"the mean time of a batch {_past(slow)}",
            summary="A batch takes {{ $value | humanizeDuration }} on average",
            description=f"Numbers are later than the promised {values.FRESH_SECONDS} s, or soon will be.",
            runbook="batches-slow",
            dashboard="pipeline",
        ),
    )


def _days() -> tuple[Alert, ...]:
    backlog, state = values.DEAD_LETTER_BACKLOG, values.STATE_GROWING
    day = span(state.window_seconds)
    return (
        Alert(
            name="DeadLetterBacklog",
            severity=TICKET,
            service="job",
            expr=f"sum(increase(streampulse_pipeline_dead_letters_total[{span(backlog.window_seconds)}]))"
            f" > {backlog.value:g}",
            hold_seconds=backlog.hold_seconds,
            reason=backlog.reason,
            condition=f"the number of dead letters {_past(backlog)}",
            summary=f"{{{{ $value | humanize }}}} dead letters came within {words(backlog.window_seconds)}",
            description="Numbers are too low by the events that do not count. The letters are kept for 30 days.",
            runbook="dead-letters",
            dashboard="pipeline",
            per_host=False,
        ),
        Alert(
            name="JobStateGrowing",
            severity=TICKET,
            service="job",
            expr=f"sum(streampulse_job_state_entries) / sum(streampulse_job_state_entries offset {day})"
            f" > {state.value:g}\n"
            f"and\nsum(streampulse_job_state_entries offset {day}) >= {state.minimum}\n"
            f"unless\nsum(increase(streampulse_job_records_total[{day}]))\n"
            f"> {values.STATE_INPUT_GROWTH:g} * sum(increase(streampulse_job_records_total[{day}] offset {day}))",
            hold_seconds=state.hold_seconds,
            reason=state.reason,
            condition=f"the job's working state is more than {state.value:g} times what it was a day ago, for"
            f" {words(state.hold_seconds)}, while at most {values.STATE_INPUT_GROWTH:g} times as many records came",
            summary="The job's working state is {{ $value | humanize }} times what it was a day ago",
            description="Nothing yet. Later the job needs more memory than it has, restarts, and numbers stand still.",
            runbook="job-state-growing",
            dashboard="pipeline",
            per_host=False,
        ),
    )


# PostgreSQL -----------------------------------------------------------------------------------------------------------


def _postgres() -> tuple[Alert, ...]:
    connections, query, bloat = values.POSTGRES_CONNECTIONS, values.POSTGRES_QUERY, values.POSTGRES_BLOAT
    return (
        Alert(
            name="PostgresConnectionsHigh",
            severity=TICKET,
            service="postgres",
            expr="sum by (host) (pg_stat_activity_count)\n/\n"
            f"max by (host) (pg_settings_max_connections)\n> {connections.value:g}",
            hold_seconds=connections.hold_seconds,
            reason=connections.reason,
            condition=f"the share of PostgreSQL's connections that are taken {_past(connections)}",
            summary="{{ $value | humanizePercentage }} of PostgreSQL's connections on {{ $labels.host }} are taken",
            description="Nothing yet. When all are taken, the job and the API are refused: numbers stand still.",
            runbook="postgres-connections-high",
            dashboard="postgres",
        ),
        Alert(
            name="PostgresQueriesSlow",
            severity=TICKET,
            service="postgres",
            expr="max by (host, datname) (\n  pg_stat_activity_max_tx_duration{\n"
            f"    {TRANSACTIONS}\n  }}\n)\n"
            f"> {query.value:g}",
            hold_seconds=query.hold_seconds,
            reason=query.reason,
            condition=f"the age of the oldest transaction {_past(query)}",
            summary="A transaction in {{ $labels.datname }} on {{ $labels.host }} has run for"
            " {{ $value | humanizeDuration }}",
            description="Mostly nothing. It may hold locks that the job waits for, and keeps rows from being cleaned.",
            runbook="postgres-queries-slow",
            dashboard="postgres",
        ),
        Alert(
            name="PostgresBloat",
            severity=TICKET,
            service="postgres",
            expr="pg_stat_user_tables_n_dead_tup\n/\n"
            "(pg_stat_user_tables_n_live_tup + pg_stat_user_tables_n_dead_tup)\n"
            f"> {bloat.value:g}\nand\npg_stat_user_tables_n_dead_tup >= {bloat.minimum}",
            hold_seconds=bloat.hold_seconds,
            reason=bloat.reason,
            condition=f"the share of a table's rows that are dead {_past(bloat)}, and these are at least"
            f" {bloat.minimum:,}",
            summary="{{ $value | humanizePercentage }} of the rows of {{ $labels.relname }} on {{ $labels.host }} are"
            " dead",
            description="Answers and batches become slower, and the disk fills.",
            runbook="postgres-queries-slow",
            dashboard="postgres",
        ),
    )


# The monitoring itself ------------------------------------------------------------------------------------------------


def _monitoring() -> tuple[Alert, ...]:
    missing, failures, notifications = values.TARGET_MISSING, values.RULE_FAILURES, values.NOTIFICATION_FAILURES
    return (
        Alert(
            name="TargetMissing",
            severity=TICKET,
            service="{{ $labels.job }}",
            expr="\nor\n".join(f'absent(up{{job="{job}"}})' for job in EXPECTED_JOBS),
            hold_seconds=missing.hold_seconds,
            reason=missing.reason,
            condition=f"Prometheus has had no target of a service for {words(missing.hold_seconds)}",
            summary="Prometheus does not know where {{ $labels.job }} runs",
            description="Nothing for users. The service is not watched: should it fail, nobody is told.",
            runbook="prometheus-down",
            dashboard="overview",
            per_host=False,
        ),
        Alert(
            name="RuleEvaluationFailing",
            severity=TICKET,
            service="prometheus",
            expr="sum by (host, rule_group) (increase(prometheus_rule_evaluation_failures_total"
            f"[{span(failures.window_seconds)}])) > {failures.value:g}",
            hold_seconds=failures.hold_seconds,
            reason=failures.reason,
            condition=f"the number of rules that could not be evaluated {_past(failures)}",
            summary="{{ $value | humanize }} evaluations of {{ $labels.rule_group }} failed on {{ $labels.host }}",
            description="Nothing for users. Alerts of this group may stay away.",
            runbook="prometheus-down",
            dashboard="overview",
        ),
        Alert(
            name="NotificationsFailing",
            severity=TICKET,
            service="alertmanager",
            expr="sum by (host, integration) (increase(alertmanager_notifications_failed_total"
            f"[{span(notifications.window_seconds)}])) > {notifications.value:g}\nor\n"
            "sum by (host) (increase(prometheus_notifications_errors_total"
            f"[{span(notifications.window_seconds)}])) > {notifications.value:g}",
            hold_seconds=notifications.hold_seconds,
            reason=notifications.reason,
            condition="Alertmanager cannot hand notifications to a receiver, or Prometheus not to Alertmanager, for"
            f" {words(notifications.hold_seconds)}",
            summary="{{ $value | humanize }} notifications"
            "{{ with $labels.integration }} by {{ . }}{{ end }} could not be sent from {{ $labels.host }}",
            description="Nothing for users. Alerts may reach nobody.",
            runbook="alertmanager-down",
            dashboard="overview",
        ),
    )


# Budgets --------------------------------------------------------------------------------------------------------------

#: Each of these says why budgets burn. Somebody is paged for it, or for each host of the service that is away.
CAUSES: Final = ("ServiceAway", "PostgresDown", "KafkaPartitionsOffline", "PipelineStalled", "ApiErrorRateHigh")


def _recent_outage() -> Alert:
    window = values.RECENT_OUTAGE_SECONDS
    return Alert(
        name="RecentOutage",
        severity=NONE,
        service="slo",
        expr='max by (cause) (\n  label_replace(\n    max_over_time(ALERTS{alertname=~"'
        + "|".join(CAUSES)
        + f'",alertstate="firing"}}[{span(window)}]),\n'
        '    "cause", "$1", "service", "(.*)"\n  )\n)',
        hold_seconds=0,
        condition=f"somebody was paged for a cause within the last {words(window)}: keeps the budgets that it has spent"
        " from paging again, and is told to nobody",
        summary=f"An outage of {{{{ $labels.cause }}}} has paged within the last {words(window)}",
        description="Nothing more than the page about the cause has said. Budgets that the outage has spent do not page"
        " again while this is so; they are still tickets.",
        runbook="watchdog",
        dashboard="overview",
        per_host=False,
    )


_NOTICE: Final[dict[str, str]] = {
    "freshness": f"Numbers reach the page and the API later than {values.FRESH_SECONDS} s after they were sent.",
    "correctness": "Numbers are wrong: events do not count, or are shown otherwise than they were sent.",
    "availability": "Requests fail: the page does not load or stops moving, programs get errors.",
    "latency": "The page and the API answer slowly.",
    "completeness": f"Numbers leave out events that have waited for more than {values.COMPLETE_SECONDS} s.",
}
_DASHBOARDS: Final[dict[str, str]] = {"availability": "api", "latency": "api"}


def _budget(slo: values.Objective, severity: str) -> Alert:
    burns = [burn for burn in values.BURNS if burn.severity == severity]
    terms = []
    for burn in burns:
        over = f"slo:burn_rate:rate{span(burn.long_seconds)}"
        now = f"slo:burn_rate:rate{span(burn.short_seconds)}"
        limit = f'{{slo="{slo.name}"}} > {burn.factor:g}'
        terms.append(f"{over}{limit}\nand\n{now}{limit}")
    name = f"{slo.name.capitalize()}BudgetBurning"
    conditions = " or ".join(
        f"{burn.factor:g} times quicker than allowed over {words(burn.long_seconds)} and over"
        f" {words(burn.short_seconds)}"
        for burn in burns
    )
    return Alert(
        name=name,
        severity=severity,
        service="slo",
        expr="\nor\n".join(terms),
        hold_seconds=0,
        condition=f"the budget is spent {conditions}",
        summary=f"The budget of {slo.name} is spent {{{{ $value | humanize }}}} times quicker than allowed",
        description=f"{_NOTICE[slo.name]} Promised: {slo.promise}.",
        runbook=f"{slo.name}-budget-burning",
        dashboard=_DASHBOARDS.get(slo.name, "overview" if slo.name == "correctness" else "pipeline"),
        labels={"slo": slo.name},
        per_host=False,
    )
