"""The lock of an environment, held by real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops.environments import lock
from streampulse_ops.machines.supervisor import started_at

HOLDER = """
import sys, time
from pathlib import Path
from streampulse_ops.environments import lock
from streampulse_ops.machines.supervisor import started_at
with lock.held(Path(sys.argv[1]), "inv reset"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_it_and_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "demo" / "lock"
    file.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = rf"demo is locked: .* `inv reset` \(pid {holder.pid}\) since 2"
        with pytest.raises(OperatorError, match=said), lock.held(file, "inv up"):
            pytest.fail("two at once")
        os.kill(holder.pid, signal.SIGKILL)
    with lock.held(file, "inv up"):
        assert '"inv up"' in file.read_text()
    assert file.read_text() == ""


def test_discarding_removes_an_empty_folder_only(tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    for folder in (full, empty):
        folder.mkdir()
        (folder / "lock").touch()
    (full / "key").touch()
    lock.discard(full / "lock")
    lock.discard(empty / "lock")
    assert [path.name for path in full.iterdir()] == ["key"]
    assert not empty.exists()


def test_a_file_that_its_holder_removed_is_not_mistaken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "demo" / "lock"
    file.parent.mkdir()
    opened = lock._opened
    stale: list[TextIO] = []

    def slow(which: Path) -> TextIO:
        handle = opened(which)
        if not stale:  # the holder ends with a wipe, just between opening and locking
            stale.append(handle)
            which.unlink()
        return handle

    monkeypatch.setattr(lock, "_opened", slow)
    with lock.held(file, "inv up"):
        assert '"inv up"' in file.read_text()
        with pytest.raises(OperatorError, match="demo is locked"), lock.held(file, "inv down"):
            pytest.fail("two at once")


PLAYING = """
import sys, time
from pathlib import Path
from streampulse_ops import ansible
from streampulse_ops.environments import lock
from streampulse_ops.cli.console import Screen
from streampulse_ops.cli.entry import timed
from streampulse_ops.environments.environment import Environment, Host

state = Path(sys.argv[1])
child = [sys.executable, "-c", sys.argv[2], str(state)]
ansible.playbook_command = lambda *_arguments: child
ansible.tools.ensure = lambda *_: None
environment = Environment("demo", state, (Host("h", frozenset()),), {"provider": "existing"})

@timed
def up() -> str:
    environment.state.mkdir(parents=True)
    with lock.held(state / "lock", "inv up"):
        ansible.play(environment, "site", [], Screen(), verbose=False)

from invoke.exceptions import Exit
try:
    up()
except Exit as error:
    print(error.message, flush=True)
    sys.exit(error.code)
"""
CHILD = """
import pathlib, signal, sys, time
state = pathlib.Path(sys.argv[1])
def end(number, frame):
    time.sleep(1)
    (state / "told").touch()
    sys.exit(99)
signal.signal(signal.SIGINT, end)
(state / "playing").write_text(str(__import__("os").getpid()))
time.sleep(60)
"""

# Ends by a signal as it is; its worker, in a session of its own, does not hear of it.
WITH_WORKER = """
import os, pathlib, sys, time
state = pathlib.Path(sys.argv[1])
if os.fork() == 0:
    os.setsid()
    (state / "playing").write_text(str(os.getpid()))
time.sleep(60)
"""


@contextlib.contextmanager
def playing(tmp_path: Path, child: str = CHILD) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a task that holds the lock while a playbook runs, and hand out the task and the playbook's process."""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-c", PLAYING, str(tmp_path), child]
    # A session of its own is what a terminal is to its processes: a signal to all of them spares ours.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as task:
        deadline = time.monotonic() + 30
        while not (tmp_path / "playing").exists() or not (tmp_path / "playing").read_text():
            assert time.monotonic() < deadline, "the playbook did not begin"
            time.sleep(0.05)
        try:
            yield task, int((tmp_path / "playing").read_text())
        finally:
            task.kill()


def locked(file: Path) -> bool:
    try:
        with lock.held(file, "inv status"):
            return False
    except OperatorError:
        return True


def test_a_task_that_is_told_to_end_ends_its_playbook_first_and_holds_the_lock_until_then(tmp_path: Path) -> None:
    with playing(tmp_path) as (task, _):
        task.terminate()
        while not (tmp_path / "told").exists():
            assert task.poll() is None, "the task ended before its playbook"
            assert locked(tmp_path / "lock") or (tmp_path / "told").exists()
            time.sleep(0.1)
        said, _errors = task.communicate(timeout=20)
        assert task.returncode == 128 + signal.SIGTERM
        assert said.strip().startswith("up: interrupted after")
    assert not locked(tmp_path / "lock")


def test_a_task_that_is_killed_leaves_the_lock_to_its_playbook(tmp_path: Path) -> None:
    with playing(tmp_path) as (task, playbook):
        task.kill()
        task.wait(10)
        assert locked(tmp_path / "lock")
        os.kill(playbook, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while locked(tmp_path / "lock"):
            assert time.monotonic() < deadline, "the lock is held by nobody"
            time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_a_closed_terminal_spares_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    with playing(tmp_path, WITH_WORKER) as (task, worker):
        os.killpg(task.pid, number)
        task.communicate(timeout=30)
        assert task.returncode == 128 + number
        assert started_at(worker) is None
    assert not locked(tmp_path / "lock")
