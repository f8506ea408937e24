"""systemd units and their processes on this host."""

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from streampulse.core.errors import OperatorError

#: Main class of Spark's executors on their command lines.
EXECUTOR: Final = "org.apache.spark.executor.CoarseGrainedExecutorBackend"


class Process(NamedTuple):
    """A process of a unit.

    ``pss_kib`` is its proportional set size: a page that n processes share counts as 1/n of a page. ``cpu_seconds`` is
    the processor time of the process and of its ended children.
    """

    unit: str
    pid: int
    words: tuple[str, ...]
    pss_kib: int
    cpu_seconds: float


def systemctl(*words: str, seconds: float = 180) -> str:
    """Run systemctl and return its output.

    :raises OperatorError: it failed.
    """
    command = ["systemctl", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise OperatorError(f"`{' '.join(command)}` did not end within {seconds:g} s") from None
    if done.returncode != 0:
        raise OperatorError(f"`{' '.join(command)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout


def properties(unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit; the name may be a pattern that one unit matches.

    :raises OperatorError: there is no such unit.
    """
    printed = systemctl("show", f"--property={','.join(('Id', *names))}", unit)
    found = dict(line.partition("=")[::2] for line in printed.splitlines() if "=" in line)
    if "Id" not in found:
        raise OperatorError(f"there is no unit {unit} here")
    return found


def names_by_unit(words: Sequence[str]) -> dict[str, str]:
    """Return the display names of units, by unit.

    :param words: each ``NAME=UNIT,...``; a unit may be a pattern, which none has to match beside another unit.
    :raises OperatorError: there is no such unit.
    """
    found = {}
    for word in words:
        name, _, units = word.partition("=")
        printed = systemctl("show", "--property=Id", *units.split(",")).split()
        if not printed:
            raise OperatorError(f"there is no unit {units} here")
        found.update(dict.fromkeys((line.removeprefix("Id=") for line in printed), name))
    return found


def main_pid(unit: str) -> int:
    """Return the main process of a unit.

    :raises OperatorError: it does not run.
    """
    pid = int(properties(unit, "MainPID").get("MainPID") or 0)
    if pid == 0:
        raise OperatorError(f"{unit} does not run: inv logs")
    return pid


def processes() -> list[Process]:
    """Return the processes of all services on this host."""
    found = []
    for process in psutil.process_iter():
        # A process may end during the read.
        with contextlib.suppress(psutil.Error, OSError):
            unit = _unit(Path(f"/proc/{process.pid}/cgroup").read_text(encoding="utf-8"))
            words = tuple(word for word in process.cmdline() if word)
            if unit and words:
                pss_kib = process.memory_full_info().pss // 1024
                found.append(Process(unit, process.pid, words, pss_kib, sum(process.cpu_times()[:4])))
    return found


def _unit(cgroup: str) -> str | None:
    """Return the service of a process from the text of its cgroup file."""
    for line in cgroup.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or controllers == "name=systemd":
            services = [part for part in path.split("/") if part.endswith(".service")]
            if services:
                return services[-1]
    return None
