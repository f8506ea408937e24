"""PostgreSQL's access rules: rendered for every kind of address, and validated by PostgreSQL before use."""

import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from streampulse_ops import paths
from streampulse_ops.bench.race.servers import postgres_binaries
from streampulse_ops.command import program_environment
from streampulse_ops.environments import inventory

ROLE = paths.repository() / "ansible" / "roles" / "postgres"

pytestmark = pytest.mark.postgres


def check(folder: Path, name: str, content: str) -> subprocess.CompletedProcess[str]:
    """Run check-access on a file, as the role does."""
    folder.chmod(0o755)
    script = Path(shutil.copy(ROLE / "files" / "check-access", folder))
    script.chmod(0o755)
    (folder / name).write_text(content)
    (folder / name).chmod(0o644)
    command = [str(script), str(postgres_binaries()), str(folder / name)]
    account = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **account)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("access")
    # PostgreSQL's account cannot read pytest's own folders.
    for parent in (made, *made.parents):
        if parent.owner() == made.owner() and "pytest-" in str(parent):
            parent.chmod(0o755)
    return made


def rendered(template: str, addresses: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Render a template of the role for hosts with these private addresses."""
    hosts = {name: {"private_address": address} for name, address in addresses.items()}
    (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    variables: dict[str, Any] = {"ansible_connection": "local", "streampulse_database": "d"}
    variables |= {"streampulse_writer": "w", "streampulse_reader": "r", "streampulse_postgres_exporter": "e"}
    command = [inventory.program("ansible"), "-i", str(folder / "inventory.json"), sorted(addresses)[0]]
    command += ["-e", json.dumps(variables), "-m", "ansible.builtin.template"]
    command += ["-a", f"src={ROLE / 'templates' / template} dest={folder / 'rendered'}"]
    environment = {**inventory.configuration(), "ANSIBLE_INVENTORY_ENABLED": "yaml"}
    return subprocess.run(
        command,
        cwd=paths.repository() / "ansible",
        env=program_environment(environment),
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_kind_of_address_becomes_a_rule_that_postgresql_reads(folder: Path) -> None:
    done = rendered("pg_hba.conf.j2", {"a": "192.0.2.1", "b": "2001:db8::1", "c": "db.example.org", "d": "h-1"}, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    content = (folder / "rendered").read_text()
    found = [tuple(line.split()[2:4]) for line in content.splitlines() if line.startswith("host")]
    rules = ("192.0.2.1/32", "2001:db8::1/128", "db.example.org", "h-1")
    # The exporter connects only from the database's host.
    assert found == [*((account, rule) for rule in rules for account in ("w", "r")), ("e", "192.0.2.1/32")]
    done = check(folder, "pg_hba.conf", content)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("address", ["192.0.2.300", "two words", "-h", "", "a_b", "192.0.2.0/24", "x" * 254])
def test_a_text_that_is_neither_address_nor_name_is_refused(address: str) -> None:
    file = paths.repository() / "ansible/plugins/filter/streampulse_address.py"
    with pytest.raises(AnsibleFilterError, match="neither an address nor a host name: correct private_address"):
        runpy.run_path(str(file))["access_rule"](address)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("pg_hba.conf", "local all all peer\nhost d w db.example.org/32 scram-sha-256\n", "line 2: specifying both"),
        ("pg_hba.conf", "local all all peer\nhost d w 192.0.2.1/33 scram-sha-256\n", "line 2: "),
        ("pg_hba.conf", "local all all nothing\n", "line 1: invalid authentication method"),
        ("pg_hba.conf", "", "found no rule"),
        ("pg_ident.conf", "streampulse postgres postgres\nstreampulse root\n", "line 2: missing entry"),
    ],
)
def test_a_rule_that_postgresql_does_not_understand_is_named(folder: Path, name: str, content: str, said: str) -> None:
    done = check(folder, name, content)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_roles_own_mapping_is_understood(folder: Path) -> None:
    done = check(folder, "pg_ident.conf", (ROLE / "templates" / "pg_ident.conf.j2").read_text())
    assert (done.returncode, done.stderr) == (0, "")
