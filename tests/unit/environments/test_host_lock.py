"""The lock on hosts, held by the real program and a real task; a shell takes the place of the SSH session."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops.cli.ending import signals_raised
from streampulse_ops.environments import host_lock, lock
from streampulse_ops.environments.host_lock import Command


def command(file: Path, task: str, release_seconds: str = "15") -> Command:
    holder = json.dumps(lock.holder(task))
    return Command(["bash", "-c", host_lock.PROGRAM, "streampulse-lock", str(file), holder, release_seconds])


def free(file: Path) -> bool:
    return subprocess.run(["flock", "-n", str(file), "true"], check=False).returncode == 0


def until_free(file: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not free(file):
        assert time.monotonic() < deadline, "the lock is still held"
        time.sleep(0.05)


def test_the_second_is_told_who_holds_it_from_where_and_since_when(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    with host_lock.held("dep", {file.name: command(file, "inv deploy") for file in files}):
        said = rf"dep is locked: .* on \S+ holds it with `inv deploy` \(pid {os.getpid()}\) since 2.* on two"
        with pytest.raises(OperatorError, match=said), host_lock.held("dep", {"two": command(files[1], "inv reset")}):
            pytest.fail("two at once")
    assert all(free(file) and file.read_text() == "" for file in files)


TASK = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_host_lock import command, host_lock
with host_lock.held("dep", {"one": command(Path(sys.argv[2]), "inv deploy")}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_task_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "one"
    words = [sys.executable, "-c", TASK, str(Path(__file__).parent), str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as task:
        assert task.stdout is not None
        assert task.stdout.readline() == "held\n"
        assert not free(file)
        task.kill()
    until_free(file, 10)


def test_the_process_releases_the_lock_without_heartbeats(tmp_path: Path) -> None:
    file = tmp_path / "one"
    words = command(file, "inv deploy", "1").words
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        for _ in range(4):
            time.sleep(0.5)
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "\n"
        assert not free(file)
        until_free(file, 10)


def test_a_task_that_loses_its_lock_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_lock, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(host_lock, "ANSWER_SECONDS", 0.5)
    file = tmp_path / "one"

    def cut() -> None:
        """Let nothing through to the holder, as a cut network does."""
        (pid,) = subprocess.run(["pgrep", "-f", str(file)], check=True, capture_output=True, text=True).stdout.split()
        os.kill(int(pid), signal.SIGSTOP)
        time.sleep(30)
        pytest.fail("the task goes on")

    with (
        pytest.raises(OperatorError, match="the lock on one was lost, so the task has stopped"),
        signals_raised(),
        host_lock.held("dep", {"one": command(file, "inv deploy")}),
    ):
        cut()
    assert free(file)
