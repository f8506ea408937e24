"""Groups of tests that share a worker of pytest-xdist, and the order in which workers take them.

A worker takes a whole file, so the fixtures of a module start once. Linters are taken one by one. Tests that boot
machines are one unit for each ``xdist_group``, in any file.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadGroupScheduling

MACHINE_FOLDERS = ("molecule", "e2e")


def plain_id(nodeid: str) -> str:
    """Return a test's id without the group that pytest-xdist appends."""
    # A parameter may contain "@" as well.
    return nodeid.rpartition("@")[0] if nodeid.rfind("@") > nodeid.rfind("]") else nodeid


class ByFileOrGroup(LoadGroupScheduling):  # type: ignore[misc] # pytest-xdist has no types
    """Distribute whole groups, whole files, and single linters."""

    def _split_scope(self, nodeid: str) -> str:
        if plain_id(nodeid) != nodeid:
            return str(super()._split_scope(nodeid))
        return nodeid if nodeid.startswith("tests/lint/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFileOrGroup | None:
    return ByFileOrGroup(config, log) if config.getoption("dist") == "loadgroup" else None


# First, because pytest-xdist reads the marks in a hook of the same name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that boot machines without a group into the group of their folder."""
    for item in items:
        folder = item.path.parent.name
        if folder in MACHINE_FOLDERS and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(folder))
