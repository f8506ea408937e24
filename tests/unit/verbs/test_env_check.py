"""inv env check: what it says about an inventory before it asks a host."""

from pathlib import Path

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments.environment import Environment, parse
from streampulse_ops.environments.session import Session
from streampulse_ops.machines.existing import Existing
from streampulse_ops.verbs import env


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Make an environment without a database and a vault; its hosts share an address at which nothing listens."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    # Port 1 of loopback refuses at once.
    hosts = {
        "a": {"ansible_host": "127.0.0.1", "ansible_port": 1},
        "b": {"ansible_host": "127.0.0.1", "ansible_port": 1},
    }
    children = {group: {"hosts": hosts} for group in ("kafka", "spark_master", "spark_worker", "api")}
    content = {"all": {"vars": {"provider": "existing", "ansible_user": "deploy"}, "children": children}}
    environment = parse("demo", tmp_path, content)
    return Session(environment, Existing(environment), Screen())


def test_each_fault_is_found_in_one_run(broken: Session) -> None:
    faults = {(finding.check, finding.where): finding for finding in env.check(broken) if not finding.ok}
    assert set(faults) == {("group", "postgres"), ("address", "b"), ("secrets", "demo"), ("login", "a"), ("login", "b")}
    assert "does not answer on SSH" in faults["login", "a"].cause
    assert "inv env secrets demo --write" in faults["secrets", "demo"].fix
    assert all(finding.cause and finding.fix for finding in faults.values())


def test_machines_of_the_project_are_not_checked(tmp_path: Path) -> None:
    environment = Environment("demo", tmp_path, (), {"provider": "nspawn"})
    with pytest.raises(OperatorError, match="inv doctor --env demo"):
        env.check(Session(environment, Existing(environment), Screen()))


@pytest.mark.parametrize(("given", "mib"), [("1g", 1024), ("512m", 512), ("2048k", 2)])
def test_a_heap_is_read_with_its_unit(given: str, mib: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streampulse_ops.environments.inventory.variables", lambda *_asked: {"kafka_heap": given})
    environment = parse("demo", tmp_path, {"all": {"vars": {"provider": "existing"}, "hosts": {"a": {}}}})
    session = Session(environment, Existing(environment), Screen())
    assert env._mib(session, environment.hosts[0], "kafka", "kafka_heap") == mib
