"""Asserts over PostgreSQL's own protocol who may come in, and what each role may do."""

import subprocess
import time
from pathlib import Path

import psycopg2
import psycopg2.errors


def settings(name: str) -> dict[str, str]:
    """Return the variables of one of the environment files, without their common prefix."""
    lines = Path(f"/etc/streampulse/{name}.env").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.removeprefix("STREAMPULSE_POSTGRES_").lower(): value.strip("'") for key, value in pairs}


def connect(values: dict[str, str], **other: str) -> "psycopg2.extensions.connection":
    """Log in over the network."""
    made = psycopg2.connect(
        host=values["host"], port=values["port"], dbname=values["database"], connect_timeout=5,
        **{"user": values["user"], "password": values["password"], **other},
    )  # fmt: skip
    made.autocommit = True
    return made


def refused(values: dict[str, str], **other: str) -> str:
    """Return the server's reason for not letting somebody in; an error when it does."""
    try:
        connect(values, **other).close()
    except psycopg2.OperationalError as error:
        return str(error)
    raise AssertionError(f"the server let in {other}")


writer, reader = settings("postgres-writer"), settings("postgres-reader")

with connect(writer).cursor() as cursor:
    cursor.execute("SELECT current_setting('server_encoding'), current_setting('password_encryption')")
    assert cursor.fetchone() == ("UTF8", "scram-sha-256")
    cursor.execute("SELECT datcollate FROM pg_database WHERE datname = current_database()")
    assert cursor.fetchone() == ("C.UTF-8",)
    cursor.execute("SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    assert cursor.fetchone() == (False,), "the writer may do more than write"
    cursor.execute("CREATE TABLE verify_made_by_writer (n int); INSERT INTO verify_made_by_writer VALUES (7)")

with connect(reader).cursor() as cursor:
    cursor.execute("SELECT n FROM verify_made_by_writer")
    assert cursor.fetchone() == (7,), "the reader does not see what the writer wrote"
    cursor.execute("SELECT count(*) FROM stream_state")
    for statement in (
        "INSERT INTO verify_made_by_writer VALUES (8)",
        "TRUNCATE stream_metrics_minute",
        "CREATE TABLE verify_made_by_reader (n int)",
        "CREATE TEMPORARY TABLE verify_temporary (n int)",
    ):
        try:
            cursor.execute(statement)
        except psycopg2.errors.InsufficientPrivilege:
            continue
        raise AssertionError(f"the reader may {statement}")

with connect(writer).cursor() as cursor:
    cursor.execute("DROP TABLE verify_made_by_writer")

assert "password authentication failed" in refused(writer, password=writer["password"] + "x")
assert "no password supplied" in refused(writer, password="")
assert "no pg_hba.conf entry" in refused(writer, user="postgres")
assert "no pg_hba.conf entry" in refused({**writer, "database": "postgres"})

unit = subprocess.run(
    ["systemctl", "list-units", "--plain", "--no-legend", "postgresql@*"], check=True, capture_output=True, text=True
).stdout.split()[0]
# The unit's own way to stop works under its limits; where it does not, systemd ends the server itself and says failed.
subprocess.run(["systemctl", "reload", unit], check=True)
subprocess.run(["systemctl", "stop", unit], check=True)
ended = subprocess.run(
    ["systemctl", "show", "--property=ActiveState,Result", unit], check=True, capture_output=True, text=True
).stdout.split()
subprocess.run(["systemctl", "start", unit], check=True)
assert sorted(ended) == ["ActiveState=inactive", "Result=success"], f"{unit} did not stop in order: {ended}"

subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit], check=True)
begun, back = time.monotonic(), False
while not back and time.monotonic() - begun < 90:
    time.sleep(0.5)
    try:
        connect(writer).close()
        back = True
    except psycopg2.OperationalError:
        continue
assert back, "the server did not come back within 90 s"
