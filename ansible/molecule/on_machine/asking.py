"""Helpers for the tests of roles, on the machine itself. Standard library only."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def run(*command: str, seconds: float = 120) -> str:
    """Return the output of a command, which must succeed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


ADDRESS = run("hostname", "-I").split()[0]


def settings(*names: str) -> dict[str, str]:
    """Return the variables of environment files in /etc/streampulse."""
    lines = [line for name in names for line in Path(f"/etc/streampulse/{name}.env").read_text().splitlines()]
    return {key: value.strip("'") for key, value in (line.split("=", 1) for line in lines if "=" in line)}


def until(what: str, seconds: float, condition: Callable[[], T], *errors: type[Exception]) -> T:
    """Wait until a condition holds and return its value.

    :param errors: exceptions that mean "not yet", beside OSError.
    """
    deadline, seen = time.monotonic() + seconds, ""
    while True:
        try:
            if found := condition():
                return found
            seen = repr(found)
        except (OSError, *errors) as error:
            seen = str(error)
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} ({seen})"
        time.sleep(0.3)


def get(url: str, user: str = "", password: str = "", body: object = None) -> tuple[int, str]:
    """Return the status and the text of an answer. JSON in ``body`` makes it a POST; an empty password sends none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def get_json(url: str) -> Any:
    """Return the JSON that a URL answers with status 200."""
    status, text = get(url)
    assert status == 200, f"{url} answers {status}: {text}"
    return json.loads(text)


def listening(port: int) -> set[str]:
    """Return the addresses that something listens on, at a port."""
    return {line.split()[3].rpartition(":")[0] for line in run("ss", "-Hltn", f"sport = :{port}").splitlines()}


def show(unit: str, name: str) -> str:
    """Return one property of a unit."""
    return run("systemctl", "show", f"--property={name}", "--value", unit)


def kill(unit: str, seconds: float = 90) -> int:
    """Kill a unit's main process, wait until systemd has started it again, and return the new pid."""
    killed = show(unit, "MainPID")
    assert killed != "0", f"{unit} does not run"
    run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit)
    until(f"{unit} is started again", seconds, lambda: show(unit, "MainPID") not in ("0", killed))
    return int(show(unit, "MainPID"))


def postgres() -> str:
    """Return PostgreSQL's unit."""
    return run("systemctl", "list-units", "--plain", "--no-legend", "--all", "postgresql@*").split()[0]


@contextmanager
def stopped(*units: str) -> Iterator[None]:
    """Stop units, and start them again in the opposite order."""
    run("systemctl", "stop", *units)
    try:
        yield
    finally:
        for unit in reversed(units):
            run("systemctl", "start", unit, seconds=300)


def said(unit: str, priority: str) -> list[str]:
    """Return the lines of a unit's processes in the journal, of exactly this priority, since the unit was started."""
    since = f"_SYSTEMD_INVOCATION_ID={show(unit, 'InvocationID')}"
    return run("journalctl", f"--priority={priority}..{priority}", "--output=cat", since).splitlines()


def can_read(user: str, file: str) -> bool:
    """Return whether a user can read a file that is there."""
    assert Path(file).exists(), f"{file} is not there"
    done = subprocess.run(["runuser", "-u", user, "--", "cat", file], check=False, capture_output=True)
    return done.returncode == 0
