"""A connection that fails in each of its ways, and the one line that is made of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invoke.exceptions import CommandTimedOut
from paramiko.ssh_exception import SSHException

from streampulse.core.errors import OperatorError
from streampulse_ops import command
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.hosts import ssh
from streampulse_ops.hosts.reach import effective
from streampulse_ops.hosts.ssh import Remote

ENVIRONMENT = Environment("demo", Path("inventories/demo"), (), {"provider": "vagrant", "ansible_user": "deploy"})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CommandTimedOut(SimpleNamespace(), 60), r"`sudo -n sleep 99` did not end within 60 s on h: .* inv status"),
        (OSError(113, "No route to host"), r"h \(192\.0\.2\.1\) cannot be reached over SSH: .*No route to host"),
        (SSHException("not its key"), "cannot be reached over SSH: not its key"),
        (EOFError(), "cannot be reached over SSH: EOFError"),
    ],
)
def test_each_failure_is_one_line(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connected = Remote(ENVIRONMENT, Host("h", frozenset(), {"ansible_host": "192.0.2.1"}))

    def fail(_command: str, **_more: Any) -> None:
        raise error

    monkeypatch.setattr(connected._connection, "run", fail)
    with connected, pytest.raises(OperatorError, match=said) as caught:
        connected.run(["sleep", "99"], timeout=60)
    assert "\n" not in str(caught.value)


def test_an_unreadable_key_is_named_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    environment = Environment("demo", tmp_path, (), {"provider": "vagrant"})
    key = environment.state / "id_ed25519"
    key.parent.mkdir(parents=True)
    key.touch()
    host = Host("h", frozenset(), {"ansible_ssh_private_key_file": str(key)})
    assert ssh.login(environment, host).key == str(key)
    monkeypatch.setattr("os.access", lambda *_asked: False)
    with pytest.raises(OperatorError, match=f"demo belongs to {key.owner()}, who made it .*: run the task as"):
        ssh.login(environment, host)


def test_the_port_of_ssh_config_counts_unless_the_inventory_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = tmp_path / "config"
    config.write_text("Host alias\n  HostName 192.0.2.1\n  Port 2222\n")
    environment = Environment("demo", tmp_path, (), {"provider": "existing"})
    given = {"ansible_host": "alias", "ansible_ssh_common_args": f"-F {config}"}
    for more, port in (({}, "2222"), ({"ansible_port": 2200}, "2200")):
        command = ssh.login(environment, Host("h", frozenset(), {**given, **more})).command()
        assert effective(command)["port"] == port


def test_the_last_words_of_a_program_are_without_colours() -> None:
    said = "[ERROR] no such artifact\n\x1b[0m\x1b[0m\n"
    assert command.last_words(said, 1) == "[ERROR] no such artifact"
