"""The distribution of tests over the workers of pytest-xdist, and their order.

A worker takes a whole file, so the fixtures of a module start once. Linters are taken one by one. Tests that boot
machines form groups, so that there are never more of them at once than two processors can serve. Deploys on three hosts
come last, when little else runs beside them.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

LAST = "deploys"
# The beginning of a test's path, and its group. The first that fits counts.
GROUPS = (
    ("tests/molecule/", "roles and monitoring"),
    ("tests/e2e/test_monitoring_alerts", "end to end"),
    ("tests/e2e/test_monitoring", "roles and monitoring"),
    ("tests/drills/", "Debian 12 and drills"),
    ("tests/e2e/test_debian12", "Debian 12 and drills"),
    ("tests/e2e/test_deploy", LAST),
    ("tests/e2e/", "end to end"),
)


def group(nodeid: str) -> str:
    """Return the name of the tests that one worker takes together with a test."""
    for beginning, name in GROUPS:
        if nodeid.startswith(beginning):
            return name
    return nodeid if nodeid.startswith("tests/lint/") else nodeid.partition("::")[0]


class ByFileOrGroup(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist has no types
    """Hand out groups of tests with machines, whole files, and single linters."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: group(item.nodeid) == LAST)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFileOrGroup | None:
    return ByFileOrGroup(config, log) if config.getoption("dist") == "loadscope" else None
