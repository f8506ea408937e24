"""Asserts over HTTP that PostgreSQL's figures are there, for those only who know the password, and what is not."""

import base64
import re
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import psycopg2
import psycopg2.errors

UNIT = "prometheus-postgres-exporter.service"
ADDRESS = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()[0]


def settings(name: str) -> dict[str, str]:
    """Return the variables of one of the environment files."""
    lines = Path(f"/etc/streampulse/{name}.env").read_text(encoding="utf-8").splitlines()
    return {key: value.strip("'") for key, value in (line.split("=", 1) for line in lines if "=" in line)}


def scrape(user: str, password: str) -> tuple[int, str]:
    """Return the status and the text of a scrape; without a password when it is empty."""
    request = urllib.request.Request(f"http://{ADDRESS}:9187/metrics")
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def listening(port: int) -> set[str]:
    """Return the addresses that something listens on, at a port."""
    shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], check=True, capture_output=True, text=True).stdout
    return {line.split()[3].rpartition(":")[0] for line in shown.splitlines()}


def value(text: str, series: str) -> float:
    """Return the value of the one series that a pattern is about."""
    found = re.findall(rf"^{series} (\S+)$", text, re.MULTILINE)
    assert len(found) == 1, f"{series}: {found}"
    return float(found[0])


def wait(what: str, series: str, wanted: float) -> None:
    """Wait until a series has a value."""
    deadline, seen = time.monotonic() + 60, ""
    while True:
        try:
            text = scrape(*known)[1]
            seen = str(re.findall(rf"^{series} (\S+)$", text, re.MULTILINE))
            if value(text, series) == wanted:
                return
        except (OSError, AssertionError) as error:
            seen = str(error)
        assert time.monotonic() < deadline, f"not within 60 s: {what} ({seen})"
        time.sleep(0.2)


monitoring = settings("monitoring")
known = (monitoring["STREAMPULSE_MONITORING_USER"], monitoring["STREAMPULSE_MONITORING_PASSWORD"])
assert scrape(known[0], "")[0] == 401, "the figures are shown without a password"
assert scrape(known[0], known[1] + "x")[0] == 401, "the figures are shown with a wrong password"
assert listening(9187) == {ADDRESS}, listening(9187)
status, text = scrape(*known)
assert status == 200, status
assert value(text, "pg_up") == 1
assert value(text, 'pg_database_size_bytes{datname="streampulse"}') > 1e6
assert value(text, r"pg_settings_max_connections\{[^}]*\}") >= 20
assert re.search(r'^pg_stat_activity_count\{[^}]*datname="streampulse"', text, re.MULTILINE)
assert re.search(r"^pg_stat_activity_max_tx_duration\{", text, re.MULTILINE)
assert re.search(r"^pg_locks_count\{", text, re.MULTILINE)
assert re.search(r"^pg_stat_database_xact_commit(_total)?\{", text, re.MULTILINE)
for name in ("n_dead_tup", "n_live_tup"):
    assert re.search(rf'^pg_stat_user_tables_{name}\{{[^}}]*relname="stream_metrics_minute"', text, re.MULTILINE), name
assert "pg_exporter_last_scrape_error 1" not in text, "a query of the exporter's failed"

# It looks at the server, and sees no event.
for file in ("postgres-exporter.env", "postgres-exporter-web.yml"):
    read = subprocess.run(
        ["runuser", "-u", "node-exporter", "--", "cat", f"/etc/streampulse/{file}"], check=False, capture_output=True
    )
    assert read.returncode != 0, f"another service can read {file}"
login = settings("postgres-exporter")
# A connection as a context would be one transaction, which the first refusal ends.
with closing(
    psycopg2.connect(
        host=ADDRESS,
        dbname="streampulse",
        user=login["DATA_SOURCE_USER"],
        password=login["DATA_SOURCE_PASS"],
        connect_timeout=5,
    )
) as connection:
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in (
            "SELECT count(*) FROM stream_state",
            "CREATE TABLE verify (n int)",
            "SELECT pg_reload_conf()",
        ):
            try:
                cursor.execute(statement)
            except psycopg2.errors.InsufficientPrivilege:
                continue
            raise AssertionError(f"the exporter may {statement}")

postgres = subprocess.run(
    ["systemctl", "list-units", "--plain", "--no-legend", "postgresql@*"], check=True, capture_output=True, text=True
).stdout.split()[0]
subprocess.run(["systemctl", "stop", postgres], check=True)
try:
    wait("the exporter says that PostgreSQL is away", "pg_up", 0)
finally:
    subprocess.run(["systemctl", "start", postgres], check=True)
wait("the exporter says that PostgreSQL is back", "pg_up", 1)
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT], check=True)
time.sleep(0.5)
wait("the exporter is back", "pg_up", 1)
