"""Looking at machines that are down: the task says so, and what starts them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from streampulse.errors import OperatorError
from streampulse.ops import health, links, look
from streampulse.ops.console import Screen
from streampulse.ops.ending import Terminated
from streampulse.ops.environment import Environment, Host
from streampulse.ops.machines.existing import Existing
from streampulse.ops.session import Session


@pytest.fixture
def down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(links, "address", lambda *_which: "http://a:8000/")
    host = Host("a", frozenset({"api", "spark_master"}))
    environment = Environment("demo", tmp_path, (host,), {"provider": "vagrant"})
    provider = Existing(environment)
    monkeypatch.setattr(provider, "running", lambda _host: False)
    return Session(environment, provider, Screen())


LOOKS: list[Callable[[Session], None]] = [
    lambda session: look.page(session, "api", tunnel=False),
    lambda session: look.page(session, "api", tunnel=True),
    lambda session: look.shell(session, ""),
    lambda session: look.logs(session, "api", follow=False, lines=1),
    lambda session: health.peek(session, "", 1),
    lambda session: health.verify(session, []),
    health.smoke,
]


@pytest.mark.parametrize("task", LOOKS)
def test_a_machine_that_is_down_is_said_to_be_down(down: Session, task: Callable[[Session], None]) -> None:
    with pytest.raises(OperatorError) as caught:
        task(down)
    assert str(caught.value) == "a is not running: inv up --env demo"


def test_a_signal_ends_what_follows_the_journal(down: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    class Journal(subprocess.Popen[bytes]):
        """The program that goes on until it is told to end; the task is told so while it waits."""

        told = False

        def wait(self, timeout: float | None = None) -> int:
            if not self.told:
                self.told = True
                raise Terminated(signal.SIGTERM)
            return super().wait(60 if timeout is None else timeout)

    follows = Journal(["sleep", "600"])
    monkeypatch.setattr(look, "_journal", lambda *_which: follows)
    look.logs(down, "api", follow=True, lines=1)
    assert follows.returncode == -signal.SIGTERM
