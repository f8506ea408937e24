"""Read-only tasks on machines that are down: one line with the command that starts them."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from sessions import session

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command, links, monitoring
from streampulse_ops.verbs import dlq, exclude, logs, silence, sql, trace
from streampulse_ops.verbs.open import page
from streampulse_ops.verbs.peek import peek
from streampulse_ops.verbs.recount import recount
from streampulse_ops.verbs.smoke import smoke, targets
from streampulse_ops.verbs.ssh import PIPED_SHELL, shell
from streampulse_ops.verbs.verify import verify


@pytest.fixture
def down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(links, "address", lambda *_which: "http://a:8000/")
    return session(tmp_path, running=False, provider="vagrant", a="api postgres spark_master job monitoring")


LOOKS: list[Callable[[Session], object]] = [
    lambda session: page(session, "api", tunnel=False),
    lambda session: page(session, "api", tunnel=True),
    lambda session: shell(session, ""),
    lambda session: logs.show(session, "api", logs.Wish(lines=1)),
    lambda session: peek(session, "", 1),
    lambda session: dlq.run(session, "list", "", [], 3, dry_run=False),
    lambda session: exclude.run(session, "list", None, "", dry_run=False),
    lambda session: trace.run(session, "", "", ""),
    lambda session: sql.run(session, "SELECT 1"),
    verify,
    lambda session: recount(session, dry_run=True, yes=False),
    smoke,
    targets,
    monitoring.require,
    lambda session: silence.run(session, silence.Wish(), as_json=False),
]


@pytest.mark.parametrize("task", LOOKS)
def test_a_machine_that_is_down_is_said_to_be_down(down: Session, task: Callable[[Session], object]) -> None:
    with pytest.raises(OperatorError) as caught:
        task(down)
    assert str(caught.value) == "a is not running: inv up --env demo"


@pytest.mark.parametrize(
    ("code", "errors", "said"),
    [
        (1, "streampulse: x is not a topic. There are: a\n", "x is not a topic. There are: a. See: "),
        (2, "usage: peek\nstreampulse peek: error: argument -n: must be from 1 to 1000\n", "argument -n: must be from"),
        (1, "", "exit code 1"),
    ],
)
def test_a_failed_peek_is_one_line(
    down: Session, monkeypatch: pytest.MonkeyPatch, code: int, errors: str, said: str
) -> None:
    monkeypatch.setattr(command, "on_master", lambda *_asked, **_more: (code, "", errors))
    with pytest.raises(OperatorError) as caught:
        peek(down, "x", 3)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    # `inv doctor` is no help against wrong usage.
    assert isinstance(caught.value, UsageError) == (code == 2)
    assert ("inv doctor --env demo" in str(caught.value)) == (code == 1)


def test_peek_prints_the_hosts_output(
    down: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "on_master", lambda *_asked, **_more: (0, "partition 0\n  [x]\n", ""))
    peek(down, "", 3)
    assert capsys.readouterr().out == "partition 0\n  [x]\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_commands_that_are_piped_in_get_no_greeting(
    down: Session, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(down.provider, "running", lambda _host: True)
    monkeypatch.setattr(os, "execvpe", lambda _file, command, _environment: started.append(command))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: terminal))
    shell(down, "")
    (ran,) = started
    assert ran[0] == "ssh"
    assert ("-T" in ran, ran[-1] == PIPED_SHELL) == (not terminal, not terminal)
