"""Looking at machines that are down: the task says so, and what starts them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.parametrize(
    ("code", "output", "errors", "said"),
    [
        (1, "", "streampulse: x is not a topic. There are: a\n", "x is not a topic. There are: a. See:"),
        (2, "", "usage: peek\nstreampulse peek: error: argument -n: must be from 1 to 1000\n", "argument -n: must be"),
        (1, "", "", "exit code 1"),
    ],
)
def test_what_peek_cannot_show_is_one_line(
    down: Session, monkeypatch: pytest.MonkeyPatch, code: int, output: str, errors: str, said: str
) -> None:
    monkeypatch.setattr(health, "on_host", lambda *_asked, **_more: (code, output, errors))
    with pytest.raises(OperatorError) as caught:
        health.peek(down, "x", 3)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert "inv doctor --env demo" in str(caught.value)


def test_peek_prints_what_the_host_said(
    down: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "on_host", lambda *_asked, **_more: (0, "partition 0\n  [x]\n", ""))
    health.peek(down, "", 3)
    assert capsys.readouterr().out == "partition 0\n  [x]\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_commands_that_are_piped_in_get_no_greeting(
    down: Session, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(down.provider, "running", lambda _host: True)
    monkeypatch.setattr(os, "execvpe", lambda _file, command, _environment: started.append(command))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: terminal))
    look.shell(down, "")
    (command,) = started
    assert command[0] == "ssh"
    assert ("-T" in command, command[-1] == look.PIPED_SHELL) == (not terminal, not terminal)
