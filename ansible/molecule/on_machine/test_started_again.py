"""After the role's tests, which kill the unit's main process."""

import subprocess

import pytest
from conftest import KILLED, UNIT


@pytest.mark.skipif(not KILLED, reason="the role's tests kill nothing")
def test_systemd_started_the_unit_again() -> None:
    shown = subprocess.run(
        ["systemctl", "show", "--property=NRestarts", "--value", UNIT], check=True, capture_output=True, text=True
    )
    assert int(shown.stdout) > 0, f"{UNIT} was not started again: was it killed?"
