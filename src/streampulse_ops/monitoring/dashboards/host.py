"""Host: processors, memory, disks, network, clock and units, and what monitoring itself does there."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring.dashboards import panels
from streampulse_ops.monitoring.dashboards.panels import VALUES

_HOST = '{host=~"$host"}'
_CPU = '(1 - avg by (host) (rate(node_cpu_seconds_total{host=~"$host", mode="idle"}[%s])))'
_MEMORY = (
    f"(1 - max by (host) (node_memory_MemAvailable_bytes{_HOST}) / max by (host) (node_memory_MemTotal_bytes{_HOST}))"
)
_NETWORK = 'sum by (host) (rate(node_network_%s_bytes_total{host=~"$host", device!="lo"}[$__rate_interval]))'
#: File systems that hold data, as the rule DiskAlmostFull has them.
_FILE_SYSTEMS = 'fstype!~"tmpfs|ramfs|squashfs|iso9660|erofs|nsfs",mountpoint!~"/(dev|etc|proc|run|sys)(/.*)?"'
_DISKS = f'{{host=~"$host",{_FILE_SYSTEMS}}}'
_DISK = f"(1 - max by (host, mountpoint) (node_filesystem_avail_bytes{_DISKS} / node_filesystem_size_bytes{_DISKS}))"


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    glance = [
        panels.up(
            1,
            "Hosts",
            """Whether each host's node exporter answers. DOWN with nothing else of that host answering: the host is
            away.""",
            'up{job="node-exporter", host=~"$host"}',
            "HostDown",
        ),
        panels.figure(
            2,
            "Processors",
            "Share of all processors that is in use, of the busiest host, over the last five minutes.",
            panels.RATIO,
            panels.now(f"max({_CPU % '5m'})"),
            decimals=0,
        ),
        panels.figure(
            3,
            "Memory",
            """Share of memory that is in use and cannot be given back, of the fullest host. Orange is where MemoryLow
            fires.""",
            panels.RATIO,
            panels.now(f"max({_MEMORY})"),
            steps=panels.above(warn=1 - VALUES.limits.memory_low.value),
            decimals=0,
            links=[panels.runbook("MemoryLow")],
        ),
        panels.figure(
            4,
            "Fullest disk",
            "Share of space that is in use, of the fullest file system. Red is where DiskAlmostFull fires.",
            panels.RATIO,
            panels.now(f"max({_DISK})"),
            steps=panels.above(bad=VALUES.limits.disk_full.value),
            decimals=0,
            links=[panels.runbook("DiskAlmostFull")],
        ),
        panels.figure(
            5,
            "Clock off by",
            """By how much a host's clock differs from that of Prometheus' host, of the worst host. Orange is where
            the alert fires.""",
            panels.SECONDS,
            panels.now(f"max(abs(timestamp(node_time_seconds{_HOST}) - node_time_seconds{_HOST}))"),
            steps=panels.above(warn=VALUES.limits.clock_offset.value),
            links=[panels.runbook("ClockOffset")],
        ),
        panels.figure(
            6,
            "Failed units",
            "Units of streampulse that systemd has given up on. 0 when all is well.",
            panels.COUNT,
            panels.now('sum(node_systemd_unit_state{host=~"$host", state="failed"})'),
            steps=panels.above(warn=1),
            links=[panels.runbook("UnitFailed")],
        ),
    ]
    machine = [
        panels.graph(
            10,
            "Processors",
            "Share of all processors that is in use. At 1 for long, everything on the host gets slower.",
            panels.RATIO,
            panels.series(_CPU % "$__rate_interval", "{{host}}"),
            most=1,
        ),
        panels.graph(
            11,
            "Processors by what they do",
            """Seconds a second that the processors spend: user and system is work, iowait is waiting for disks, steal
            is taken by others.""",
            panels.COUNT,
            panels.series(
                'sum by (mode) (rate(node_cpu_seconds_total{host=~"$host", mode!="idle"}[$__rate_interval]))',
                "{{mode}}",
            ),
            stacked=True,
        ),
        panels.graph(
            12,
            "Load for each processor",
            """Processes that run or wait to run, over five minutes, for each processor. Above 1 for long, processes
            wait.""",
            panels.COUNT,
            panels.series(
                f"max by (host) (node_load5{_HOST})"
                ' / count by (host) (node_cpu_seconds_total{host=~"$host", mode="idle"})',
                "{{host}}",
            ),
        ),
        panels.graph(
            13,
            "Memory in use",
            "Share of memory that cannot be given back at once. The dashed line is where MemoryLow fires.",
            panels.RATIO,
            panels.series(_MEMORY, "{{host}}"),
            steps=panels.above(warn=1 - VALUES.limits.memory_low.value),
            most=1,
            links=[panels.runbook("MemoryLow")],
        ),
        panels.graph(
            14,
            "Disk space in use",
            "Share of space by file system. The dashed line is where DiskAlmostFull fires.",
            panels.RATIO,
            panels.series(_DISK, "{{host}} {{mountpoint}}"),
            steps=panels.above(bad=VALUES.limits.disk_full.value),
            most=1,
            links=[panels.runbook("DiskAlmostFull")],
        ),
        panels.graph(
            15,
            "Disks",
            "Bytes a second that are read and written.",
            panels.BYTES_PER_SECOND,
            panels.series(
                f"sum by (host) (rate(node_disk_read_bytes_total{_HOST}[$__rate_interval]))", "{{host}} read"
            ),
            panels.series(
                f"sum by (host) (rate(node_disk_written_bytes_total{_HOST}[$__rate_interval]))", "{{host}} written"
            ),
        ),
        panels.graph(
            16,
            "Network",
            "Bytes a second that are received and sent, without the host's talk to itself.",
            panels.BYTES_PER_SECOND,
            panels.series(_NETWORK % "receive", "{{host}} received"),
            panels.series(_NETWORK % "transmit", "{{host}} sent"),
        ),
        panels.graph(
            17,
            "Clock",
            """By how much a host's clock differs from that of Prometheus' host. Events from hosts with wrong clocks
            are late or from the future, and then do not count.""",
            panels.SECONDS,
            panels.series(
                f"max by (host) (abs(timestamp(node_time_seconds{_HOST}) - node_time_seconds{_HOST}))", "{{host}}"
            ),
            steps=panels.above(warn=VALUES.limits.clock_offset.value),
            links=[panels.runbook("ClockOffset")],
        ),
        panels.graph(
            18,
            "Up for",
            "How long ago the host was started. A line that falls to nothing is a reboot.",
            panels.DAYS,
            panels.series(f"(time() - max by (host) (node_boot_time_seconds{_HOST})) / 86400", "{{host}}"),
        ),
    ]
    units = [
        panels.table(
            30,
            "Units",
            """Every unit of streampulse's: whether it is active, and how often systemd has started it again by
            itself. One that is not active, or whose restarts grow, has its reason in the journal: inv logs
            SERVICE.""",
            panels.COUNT,
            panels.rows(
                'max by (host, name) (node_systemd_unit_state{host=~"$host", state="active", name=~".+[.]service"})'
            ),
            panels.rows(f"max by (host, name) (node_systemd_service_restart_total{_HOST})"),
            columns={"host": "host", "name": "unit", "Value #A": "state", "Value #B": "restarts"},
            overrides={
                "state": [
                    panels.COLOURED,
                    ("mappings", panels.texts({"0": ("not active", panels.BAD), "1": ("active", panels.GOOD)})),
                ]
            },
            sort="unit",
            span=12,
            height=10,
            links=[panels.runbook("UnitFailed")],
        ),
        panels.graph(
            31,
            "Restarts",
            "How often systemd started units again by itself, over ten minutes. A unit that flaps fires UnitFlapping.",
            panels.COUNT,
            panels.series(
                f"sum by (host, name) (increase(node_systemd_service_restart_total{_HOST}[10m])) > 0",
                "{{host}} {{name}}",
            ),
            span=12,
            height=10,
            decimals=0,
            links=[panels.runbook("UnitFlapping")],
        ),
    ]
    itself = [
        panels.graph(
            40,
            "Series that Prometheus holds",
            "Series in memory. Sudden growth: a label has got values without bound.",
            panels.COUNT,
            panels.series("prometheus_tsdb_head_series", "{{host}}"),
        ),
        panels.graph(
            41,
            "Prometheus on disk",
            "Bytes of Prometheus' blocks. Bounded by time and by size.",
            panels.BYTES,
            panels.series("prometheus_tsdb_storage_blocks_bytes", "{{host}}"),
        ),
        panels.graph(
            42,
            "Time of a scrape",
            "How long each target takes to answer Prometheus. Longer than the time-out counts as down.",
            panels.SECONDS,
            panels.series('max by (job) (scrape_duration_seconds{host=~"$host"})', "{{job}}"),
        ),
        panels.graph(
            43,
            "Processors for monitoring",
            "Processors in use by Prometheus, Alertmanager, the exporters and the probe.",
            panels.COUNT,
            panels.series(
                "sum by (job) (rate(process_cpu_seconds_total{"
                'job=~"prometheus|alertmanager|node-exporter|postgres-exporter|probe|grafana"}[$__rate_interval]))',
                "{{job}}",
            ),
            stacked=True,
            decimals=3,
        ),
        panels.graph(
            44,
            "Memory for monitoring",
            "Bytes in use by Prometheus, Alertmanager, the exporters and the probe.",
            panels.BYTES,
            panels.series(
                "sum by (job) (process_resident_memory_bytes{"
                'job=~"prometheus|alertmanager|node-exporter|postgres-exporter|probe|grafana"})',
                "{{job}}",
            ),
            stacked=True,
        ),
        panels.graph(
            45,
            "Rules and notifications that failed",
            """Over ten minutes: rules that could not be evaluated, and notifications that did not get out. None is
            right.""",
            panels.COUNT,
            panels.series("sum(increase(prometheus_rule_evaluation_failures_total[10m]))", "rules"),
            panels.series("sum(increase(alertmanager_notifications_failed_total[10m]))", "notifications"),
            decimals=0,
            links=[panels.runbook("RuleEvaluationFailing"), panels.runbook("NotificationsFailing")],
        ),
    ]
    return panels.board(
        "host",
        "Whether the machines have room: processors, memory, disks, network, clock, units, and monitoring itself.",
        [panels.environment(), panels.host('up{job="node-exporter"}')],
        [("At a glance", glance), ("Machine", machine), ("Units", units), ("Monitoring itself", itself)],
    )
