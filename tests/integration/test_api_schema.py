"""The API against its own schema: its responses to every schemathesis request match."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Database
from gunicorn_server import running

pytestmark = pytest.mark.postgres


def test_answers_are_as_described(database: Database, tmp_path: Path) -> None:
    database.fill(20, 100, "m, 1, 2.5, 0, 0, 0, 0")
    database.execute("UPDATE event_clock SET clock = '2026-05-01T12:00:30.5Z'")
    with running(database, workers=2) as server:
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"),
            # An event stream has no end: tests/integration/test_api_live.py covers it.
            *("--exclude-path", "/live"),
            *("--max-examples", "30", "--seed", "1", "--checks", "all", "--no-color", "--continue-on-failure"),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
    assert "Tested: 7" in done.stdout
