"""Fixtures of every role's tests on the machine: the unit's limits, its end by force, and its journal.

``SCENARIO_UNIT`` names the unit. With ``SCENARIO_KILLED=1`` the role's own tests must kill the unit's main process,
and systemd must have started it again.
"""

import os
import subprocess

import pytest

UNIT = os.environ["SCENARIO_UNIT"]
if UNIT.startswith("postgresql@"):
    # The version is the distribution's.
    listed = subprocess.run(["systemctl", "list-units", "--plain", "--no-legend", "--all", UNIT], check=True,
                            capture_output=True, text=True).stdout  # fmt: skip
    UNIT = listed.split()[0]
KILLED = os.environ["SCENARIO_KILLED"] == "1"


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session", autouse=True)
def _counted_from_here() -> None:
    if KILLED:
        _output("systemctl", "reset-failed", UNIT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the unit's own tests around those of the role."""
    items.sort(key=lambda item: {"test_limits": 0, "test_started_again": 2}.get(item.path.stem, 1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:  # noqa: ARG001
    """Add the unit's journal to a failure."""
    report = yield
    if report.failed and UNIT:
        journal = subprocess.run(["journalctl", "--no-pager", "--lines=60", f"--unit={UNIT}"], check=False,
                                 capture_output=True, text=True)  # fmt: skip
        report.sections.append((f"journal of {UNIT}", journal.stdout + journal.stderr))
    return report
