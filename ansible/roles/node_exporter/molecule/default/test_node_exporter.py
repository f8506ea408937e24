"""The host's metrics are available only with the password, also after a kill."""

import re

import pytest
from asking import ADDRESS, get, kill, listening, settings, show, until

UNIT = "prometheus-node-exporter.service"
ENV = settings("monitoring")
USER, PASSWORD = ENV["STREAMPULSE_MONITORING_USER"], ENV["STREAMPULSE_MONITORING_PASSWORD"]
URL = f"http://{ADDRESS}:9100/metrics"
RESTARTS = f'node_systemd_service_restart_total{{name="{UNIT}"}}'
SERIES = [
    "node_boot_time_seconds", "node_cpu_seconds_total", "node_disk_io_time_seconds_total",
    'node_filesystem_avail_bytes{device="[^"]*",(device_error="",)?fstype="[^"]*",mountpoint="/"', "node_load1",
    "node_memory_MemAvailable_bytes", "node_network_receive_bytes_total", "node_time_seconds", "node_uname_info",
]  # fmt: skip


@pytest.fixture(scope="module")
def text() -> str:
    status, text = get(URL, USER, PASSWORD)
    assert status == 200
    return text


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_scrape_without_the_password_is_refused(password: str) -> None:
    assert get(URL, USER, password)[0] == 401


def test_it_listens_on_the_private_address_only() -> None:
    assert listening(9100) == {ADDRESS}


@pytest.mark.parametrize("name", SERIES)
def test_a_series_is_there(text: str, name: str) -> None:
    assert re.search(f"^{name}", text, re.MULTILINE)


def test_every_collector_works(text: str) -> None:
    assert re.findall(r'node_scrape_collector_success\{collector="(\w+)"\} 0', text) == []


def test_the_unit_may_ask_for_the_clock_and_not_set_it() -> None:
    # A container may not query the clock, so its collector is left out here.
    allowed = set(show(UNIT, "SystemCallFilter").split())
    assert "adjtimex" in allowed
    assert not {"settimeofday", "clock_settime"} & allowed


def test_it_counts_restarts_of_the_stacks_units(text: str) -> None:
    units = set(re.findall(r'node_systemd_unit_state\{name="([^"]+)",state="active"', text))
    assert UNIT in units
    ours = ("streampulse-", "prometheus", "kafka", "spark-", "postgresql", "grafana-")
    assert [unit for unit in units if not unit.startswith(ours)] == []
    assert f"{RESTARTS} 0" in text
    kill(UNIT)
    until("the restart is counted", 60, lambda: f"{RESTARTS} 1" in get(URL, USER, PASSWORD)[1])
