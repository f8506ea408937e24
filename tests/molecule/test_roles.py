"""Every role on a booted machine, through Molecule: check mode, converge, idempotence, and what the service says.

The roles share one machine, in the order in which they need one another.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "ansible" / "roles"
ORDER = [
    "base",
    "release",
    "postgres",
    "kafka",
    "spark",
    "spark_master",
    "spark_worker",
    "job",
    "generator",
    "api",
    "node_exporter",
    "postgres_exporter",
    "alertmanager",
    "prometheus",
    "probe",
    "grafana",
]

#: What a scenario says when it could not do all that it would.
NOT_DONE = re.compile(r"not done here: (.+?)\"?$", re.MULTILINE)

pytestmark = pytest.mark.machines
not_done: dict[str, str] = {}


@pytest.fixture(scope="module", autouse=True)
def shared_machine(bootable: None) -> Iterator[None]:  # noqa: ARG001 - asks whether machines can be booted
    destroy = [sys.executable, str(ROOT / "ansible" / "molecule" / "machine.py"), "destroy"]
    subprocess.run(destroy, check=True)  # what an interrupted run left
    yield
    subprocess.run(destroy, check=True)


def test_every_role_is_in_the_order() -> None:
    assert sorted(ORDER) == sorted(path.name for path in ROLES.iterdir() if path.is_dir())


@pytest.mark.parametrize("role", ORDER)
def test_role(role: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "STREAMPULSE_MOLECULE_SHARED": "1",
        # Molecule's notes on what is created and prepared: those of an interrupted run tell of a machine that is gone.
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        ["molecule", "test"], cwd=ROLES / role, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{done.stdout[-12_000:]}\n{done.stderr[-4_000:]}"
    said = NOT_DONE.findall(done.stdout)
    if said:
        not_done[role] = "; ".join(said)


def test_nothing_was_left_out() -> None:
    """Say in the summary what a scenario could not do here; it is no failure."""
    if not_done:
        pytest.skip("; ".join(f"{role}: {said}" for role, said in not_done.items()))
