"""Every role on one booted machine: syntax, check mode, converge, idempotence, and the tests of its service.

`molecule test` in a role's folder does the same for one role with the same playbooks. Here one run of ansible-playbook
takes all roles whose needs are there already, since starting Ansible costs as much as applying a role.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / "ansible"
ROLES = ANSIBLE / "roles"
MACHINE = [sys.executable, str(ANSIBLE / "molecule" / "machine.py")]
STATE = Path("/var/lib/streampulse-machines/molecule")
NEEDS: dict[str, list[str]] = yaml.safe_load((ANSIBLE / "molecule" / "vars.yml").read_text())["scenario_needs"]
#: A scenario's report of a part that it could not do on this machine.
NOT_DONE = re.compile(r"not done here: (.+?)\"?$", re.MULTILINE)

pytestmark = pytest.mark.machines


def own_playbooks(role: str) -> bool:
    """Return whether a role's scenario has playbooks of its own."""
    return (ROLES / role / "molecule" / "default" / "converge.yml").exists()


def stages() -> list[list[str]]:
    """Return the roles in groups: all that a group needs is in the groups before it."""
    found: list[list[str]] = []
    done: set[str] = set()
    while left := [role for role in NEEDS if role not in done]:
        ready = [role for role in left if set(NEEDS[role]) <= done]
        assert ready, f"{left} need one another"
        shared = [role for role in ready if not own_playbooks(role)]
        found += [[role] for role in ready if own_playbooks(role)] if not shared else [shared]
        done |= set(found[-1])
    return found


STAGES = stages()
#: The roles without playbooks of their own, in the order in which they need one another.
SHARED = [role for roles in STAGES for role in roles if not own_playbooks(role)]
OWN = [role for role in NEEDS if own_playbooks(role)]


def play(playbook: str, roles: list[str], *options: str) -> str:
    """Run a playbook of the scenarios on roles and return what Ansible printed; a failure fails the test."""
    own = ROLES / roles[0] / "molecule" / "default" / f"{playbook}.yml"
    file = own if own.exists() else ANSIBLE / "molecule" / f"{playbook}.yml"
    return ansible([str(file), "--extra-vars", json.dumps({"scenario_roles": roles, "full": True}), *options], roles[0])


def ansible(arguments: list[str], role: str = "base") -> str:
    """Run ansible-playbook as the product does, with the Mitogen strategy, on the scenarios' inventory."""
    mitogen = importlib.util.find_spec("ansible_mitogen")
    assert mitogen is not None
    assert mitogen.submodule_search_locations is not None
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
        "ANSIBLE_DEPRECATION_WARNINGS": "false",
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "ANSIBLE_STRATEGY_PLUGINS": str(Path(mitogen.submodule_search_locations[0]) / "plugins" / "strategy"),
        "ANSIBLE_NOCOLOR": "1",
        # As Molecule sets them: the folders of the role and of its scenario.
        "MOLECULE_PROJECT_DIRECTORY": str(ROLES / role),
        "MOLECULE_SCENARIO_DIRECTORY": str(ROLES / role / "molecule" / "default"),
    }
    inventories = [ANSIBLE / "molecule" / "inventories" / "molecule" / "hosts.yml", STATE / "inventory.json"]
    sources = [f"--inventory={file}" for file in [*inventories, ANSIBLE / "ports"]]
    program = str(Path(sys.executable).parent / "ansible-playbook")
    done = subprocess.run(
        [program, *sources, *arguments],
        cwd=ANSIBLE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-16_000:]
    return done.stdout


def changed_tasks(output: str) -> list[str]:
    """Return the names of the tasks that changed something."""
    task, found = "", []
    for line in output.splitlines():
        if line.startswith(("TASK [", "RUNNING HANDLER [")):
            task = line.partition("[")[2].rpartition("]")[0]
        elif line.startswith("changed: "):
            found.append(task)
    return found


@pytest.fixture(scope="module", autouse=True)
def machine(bootable: None) -> Iterator[None]:  # noqa: ARG001 - asks whether machines can be booted
    subprocess.run([*MACHINE, "destroy"], check=True)  # the machine of an interrupted run
    subprocess.run([*MACHINE, "up"], check=True)
    yield
    subprocess.run([*MACHINE, "destroy"], check=True)


def test_every_role_has_a_scenario() -> None:
    assert sorted(NEEDS) == sorted(path.name for path in ROLES.iterdir() if path.is_dir())


def test_syntax() -> None:
    ansible(["--syntax-check", *(str(file) for file in sorted((ANSIBLE / "playbooks").glob("*.yml")))])


@pytest.mark.parametrize("roles", [roles for roles in STAGES if roles[0] in SHARED], ids="+".join)
def test_check_mode_then_converge(roles: list[str]) -> None:
    play("converge", roles, "--check")
    play("converge", roles)


def test_a_second_run_changes_nothing() -> None:
    assert changed_tasks(play("converge", SHARED)) == []


def test_the_disk_becomes_a_layer_and_a_machine_boots_on_it() -> None:
    """End to end tests start from this layer; the machine that boots on it has an identity of its own."""
    wiped = ["--extra-vars", json.dumps({"streampulse_keep": [], "streampulse_reset": False})]
    ansible([*wiped, *(str(ANSIBLE / "playbooks" / f"{name}.yml") for name in ("monitoring_wipe", "wipe"))])
    for verb in ("commit", "up"):
        subprocess.run([*MACHINE, verb], check=True)
    layer = subprocess.run([*MACHINE, "layer"], check=True, capture_output=True, text=True).stdout.strip()
    assert layer
    # Services are enabled, so they are up again after this; a converge makes the data that was wiped.
    play("converge", SHARED)


# Not part of the layer: a stand-in may take the place of its package.
@pytest.mark.parametrize("role", OWN)
def test_a_role_with_playbooks_of_its_own(role: str) -> None:
    for playbook, option in (("prepare", "--diff"), ("converge", "--check"), ("converge", "--diff")):
        play(playbook, [role], option)
    assert changed_tasks(play("converge", [role])) == []


@pytest.mark.parametrize("role", [*SHARED, *OWN])
def test_the_service_itself(role: str) -> None:
    """The tests of a role run on the machine; each has its own line in their output."""
    if role in OWN:
        said = NOT_DONE.findall(play("verify", [role]))
        if said:
            pytest.skip("; ".join(said))
        return
    done = subprocess.run([*MACHINE, "verify", role], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-4_000:]


def test_molecule_itself(tmp_path: Path) -> None:
    """Molecule finds the machine, the playbooks and a role's tests, for people who work on one role."""
    environment = {
        **os.environ,
        "STREAMPULSE_MOLECULE_SHARED": "1",
        # Molecule's notes on what it created: those of an interrupted run describe a machine that is gone.
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
    }
    for verb in ("converge", "verify"):
        done = subprocess.run(
            ["molecule", verb], cwd=ROLES / "base", env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{done.stdout[-12_000:]}\n{done.stderr[-4_000:]}"
