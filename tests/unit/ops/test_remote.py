"""A connection that fails in each of its ways, and the one line that is made of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invoke.exceptions import CommandTimedOut
from paramiko.ssh_exception import SSHException

from streampulse.errors import OperatorError
from streampulse.ops.environment import Environment, Host
from streampulse.ops.remote import Remote

ENVIRONMENT = Environment("demo", Path("inventories/demo"), (), {"provider": "existing", "ansible_user": "deploy"})


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
    remote = Remote(ENVIRONMENT, Host("h", frozenset(), {"ansible_host": "192.0.2.1"}))

    def fail(_command: str, **_more: Any) -> None:
        raise error

    monkeypatch.setattr(remote._connection, "run", fail)
    with remote, pytest.raises(OperatorError, match=said) as caught:
        remote.run(["sleep", "99"], timeout=60)
    assert "\n" not in str(caught.value)
