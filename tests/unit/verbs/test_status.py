"""inv status: parsing of a host's answer."""

from streampulse_ops.environments.environment import Host
from streampulse_ops.services import Service
from streampulse_ops.verbs import status

HOST = Host("h", frozenset({"kafka", "api"}))
OUTPUT = """\
== kafka.service
Id=kafka.service
ActiveState=active
SubState=running
ActiveEnterTimestamp=Sat 2026-01-31 12:00:00 UTC
PssKiB=318464
Ticks=1000.50 41:500 42:7 43:9
Version=4.3.1-abc
== streampulse-api.service
PssKiB=0
Ticks=1000.51
Version=0123
== kafka.service
TicksLater=1002.50 41:530 42:8 44:90
== streampulse-api.service
TicksLater=1002.51
"""


def test_a_service_that_runs_and_one_that_is_not_installed() -> None:
    listed = [Service("kafka", "kafka.service", "kafka"), Service("api", "streampulse-api.service", "api")]
    kafka, api = status.parse(HOST, listed, OUTPUT)
    assert kafka == status.Row(
        "kafka", "h", "active (running)", "2026-01-31 12:00:00 UTC", 311, "4.3.1-abc", cpu_percent=16
    )
    assert kafka.healthy
    assert api.state == "not installed"
    assert not api.healthy


def test_each_shard_of_the_job_has_a_row() -> None:
    listed = [Service("job", "streampulse-job.service", "job"), Service("api", "streampulse-api.service", "api")]
    running, failed = "ActiveState=active\nSubState=running\n", "ActiveState=failed\nSubState=failed\n"
    units = {"job": running, "api": running, "job@0": running, "job@1": failed}
    rows = status.parse(
        HOST, listed, "".join(f"== streampulse-{name}.service\n{state}" for name, state in units.items())
    )
    assert {row.entry.name for row in rows} == {"job", "api"}
    assert [(row.service, row.healthy) for row in rows] == [
        ("job", True),
        ("job@0", True),
        ("job@1", False),
        ("api", True),
    ]


def test_monitoring_without_a_set_up_has_no_rows() -> None:
    listed = [Service("prometheus", "prometheus.service", "monitoring", full=True)]
    nowhere = "== prometheus.service\nActiveState=inactive\nSubState=dead\nFragmentPath=\nDropInPaths=\n"
    assert status.parse(HOST, listed, nowhere) == []
    of_others = nowhere.replace("FragmentPath=", "FragmentPath=/usr/lib/systemd/system/prometheus.service")
    assert status.parse(HOST, listed, of_others) == []
    drop_in = "DropInPaths=/etc/systemd/system/prometheus.service.d/streampulse.conf"
    [stopped] = status.parse(HOST, listed, of_others.replace("DropInPaths=", drop_in))
    assert stopped.state == "inactive (dead)"
    assert not stopped.healthy
