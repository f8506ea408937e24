"""Asserts over HTTP that the host's figures are there, for those only who know the password, also after a kill."""

import base64
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

UNIT = "prometheus-node-exporter.service"
LINES = Path("/etc/streampulse/monitoring.env").read_text(encoding="utf-8").splitlines()
ENV = {key: value.strip("'") for key, value in (line.split("=", 1) for line in LINES if "=" in line)}
ADDRESS = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()[0]


def scrape(password: str) -> tuple[int, str]:
    """Return the status and the text of a scrape; without a password when it is empty."""
    request = urllib.request.Request(f"http://{ADDRESS}:9100/metrics")
    if password:
        pair = f"{ENV['STREAMPULSE_MONITORING_USER']}:{password}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def listening(port: int) -> set[str]:
    """Return the addresses that something listens on, at a port."""
    shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], check=True, capture_output=True, text=True).stdout
    return {line.split()[3].rpartition(":")[0] for line in shown.splitlines()}


password = ENV["STREAMPULSE_MONITORING_PASSWORD"]
assert scrape("")[0] == 401, "the figures are shown without a password"
assert scrape(password + "x")[0] == 401, "the figures are shown with a wrong password"
status, text = scrape(password)
assert status == 200, status
assert listening(9100) == {ADDRESS}, listening(9100)

for collector in re.findall(r'node_scrape_collector_success\{collector="(\w+)"\} 0', text):
    raise AssertionError(f"the collector {collector} fails")
for name in (
    "node_boot_time_seconds",
    "node_cpu_seconds_total",
    "node_disk_io_time_seconds_total",
    'node_filesystem_avail_bytes{device="[^"]*",(device_error="",)?fstype="[^"]*",mountpoint="/"',
    "node_load1",
    "node_memory_MemAvailable_bytes",
    "node_network_receive_bytes_total",
    "node_time_seconds",
    "node_uname_info",
):
    assert re.search(f"^{name}", text, re.MULTILINE), f"{name} is not there"
# A container may not ask for the clock, so that is left out here. The unit itself lets it be asked for.
allowed = subprocess.run(
    ["systemctl", "show", "--property=SystemCallFilter", "--value", UNIT], check=True, capture_output=True, text=True
).stdout.split()
assert "adjtimex" in allowed, allowed
assert not {"settimeofday", "clock_settime"} & set(allowed), allowed

units = set(re.findall(r'node_systemd_unit_state\{name="([^"]+)",state="active"', text))
assert UNIT in units, units
assert all(unit.startswith(("streampulse-", "prometheus", "kafka", "spark-", "postgresql")) for unit in units), units
assert f'node_systemd_service_restart_total{{name="{UNIT}"}} 0' in text, "it was started again, or nobody counts that"

subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT], check=True)
time.sleep(0.5)
deadline, seen = time.monotonic() + 60, ""
while f'node_systemd_service_restart_total{{name="{UNIT}"}} 1' not in seen:
    assert time.monotonic() < deadline, f"it did not come back within 60 s: {seen[-300:]}"
    time.sleep(0.2)
    try:
        seen = scrape(password)[1]
    except OSError as error:
        seen = str(error)
