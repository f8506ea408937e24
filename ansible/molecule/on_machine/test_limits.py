"""Every unit is held to the limit of exposure, and to starting at boot."""

import subprocess

import pytest
from conftest import UNIT

pytestmark = pytest.mark.skipif(not UNIT, reason="the role has no unit")


@pytest.mark.parametrize(
    "command", [["systemd-analyze", "security", "--threshold=30", "--no-pager"], ["systemctl", "is-enabled"]]
)
def test_the_unit_itself(command: list[str]) -> None:
    done = subprocess.run([*command, UNIT], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
