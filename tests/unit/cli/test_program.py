"""The program behind ./inv: exit codes and messages."""

import importlib
import inspect
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.collection import Collection

from streampulse_ops import paths
from streampulse_ops.cli import program


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--list"], 0, "doctor"),
        (["frobnicate"], 2, "No idea what 'frobnicate' is"),
        (["up", "--frobnicate"], 2, "--frobnicate"),
        (["status", "--env", "stagin"], 1, "stagin is not an environment. There are:"),
        (["open", "grafanna"], 2, "grafanna is not a page. There are: "),
        (["up", "--env"], 2, "inv: --env needed value and was not given one! See: inv --list"),
        (["logs", "--lines", "-5", "--env", "staging"], 2, "logs: -5 lines cannot be shown: inv logs job --lines"),
        ([], 0, "doctor"),
        (["top", "--every", "0", "--env", "staging"], 2, "write a number from 1 to 3600"),
        (["silence", "--for", "30m", "--reason", "r", "--env", "staging"], 2, "silent about what?"),
        # As other programs have it, also of a task that is given a word.
        (["logs", "--help"], 0, "Usage: inv [--core-opts] logs"),
        (["ssh", "sp-local", "--help"], 0, "Usage: inv [--core-opts] ssh"),
        (["frob", "--help"], 2, "No idea what 'frob' is!"),
        (["peek", "-n", "abc"], 2, "an option has a value that it cannot take: 'abc' is not a whole number. See"),
        (["down", "--env", "staging"], 1, "/proc/streampulse"),  # where the state cannot be written
        (["reset", "--keep", "topics"], 2, "topics is nothing that can be kept. There are: kafka, postgres,"),
        (["reset", "--keep", "postgres"], 2, "inv reset --keep kafka,postgres"),
        (["reset", "--keep", "checkpoints"], 2, "inv reset --keep kafka,postgres,checkpoints"),
        # A variable that is not set must not remove everything.
        (["reset", "--keep=", "--yes"], 2, "--keep names nothing"),
        (["status", "--env", "LOCAL"], 1, "A new one: inv env new NAME"),
        # A surplus word is a mistake and no other task.
        (["open", "api", "docs"], 2, "one task at a time: docs"),
        (
            ["reset", "--dry-run", "--env", "staging", "--keep", "kafka"],
            0,
            "keep all events (Kafka's topics stream.events",
        ),
        (["stop", "kafkaa", "--env", "staging"], 2, "kafkaa is not a service. There are: postgres, kafka,"),
        (["restart", "api", "--host", "kafka-1", "--env", "staging"], 1, "kafka-1 does not run api, api-1 does"),
        (["start", "generator", "--env", "staging"], 1, "staging has no host with generator"),
        (["env", "frob", "x"], 2, "inv env new NAME"),
        # Words that may be left out.
        (["runbook", "show", "kafka-down"], 0, "Kafka is down"),
        (["exclude", "list", "--env", "stagin"], 1, "stagin is not an environment"),
        (["exclude"], 2, "did not receive required positional arguments"),
        (["open", "--env", "staging"], 0, "http://203.0.113.41:8000/"),
    ],
)
def test_the_program_explains_and_ends_with_the_right_code(
    arguments: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STREAMPULSE_INVENTORIES", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/proc")
    monkeypatch.setattr("sys.argv", ["inv", "--search-root", str(paths.repository()), *arguments])
    ended: object = 0
    try:
        program.main()
    except SystemExit as error:
        ended = error.code
    shown = capsys.readouterr()
    assert ended == code, shown
    assert said in shown.out + shown.err


def test_files_are_readable_for_services_whatever_the_umask_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streampulse_ops.cli.program", "--search-root", str(paths.repository())]
    environment = {**os.environ, "STREAMPULSE_INVENTORIES": str(tmp_path)}
    subprocess.run([*command, "env", "new", "demo"], env=environment, check=True, umask=0o077, capture_output=True)
    made = tmp_path / "demo/hosts.yml"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (made.parent, made)] == [0o755, 0o644]


def test_a_word_that_may_be_left_out_has_the_default_none() -> None:
    """Invoke takes a positional argument with another default for given, and reads the word as a task."""
    for task in Collection.from_module(importlib.import_module("tasks")).tasks.values():
        defaults = {name: inspect.signature(task.body).parameters[name].default for name in task.positional}
        assert set(defaults.values()) <= {None, inspect.Parameter.empty}, (task.name, defaults)
