"""What a look has: a host, its findings, and the registry of all looks."""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streampulse.core import http
from streampulse.core.errors import OperatorError

#: The services that the inventory assigns to this host, written by the base role.
SERVICES_FILE: Final = Path("/etc/streampulse/services.json")
#: The alerts' limits, written by the base role from prometheus/values.yml. Inside the wheel a change of them would
#: restart the services.
LIMITS_FILE: Final = Path("/etc/streampulse/limits.json")
#: The roles install units and drop-ins here. A unit file elsewhere may come from a package that the roles do not
#: manage.
OURS: Final = "/etc/systemd/system/"
ANSWER_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """One finding. ``seen`` is the observation; a fault has a code, a cause and a fix, which is a command."""

    check: str
    ok: bool
    seen: str = ""
    cause: str = ""
    fix: str = ""
    code: str = ""


def fault(code: str, name: str, cause: str, fix: str) -> Finding:
    """Return a fault of the look ``name``."""
    return Finding(name, ok=False, cause=cause, fix=fix, code=code)


def fine(name: str, seen: str) -> Finding:
    """Return an observation of the look ``name``."""
    return Finding(name, ok=True, seen=seen)


class Host:
    """Access to the system for the looks; tests substitute it."""

    def command(self, *words: str) -> str:
        """Return the output of a command.

        :raises OSError: the command is missing or times out.
        """
        try:
            done = subprocess.run(  # noqa: S603 - fixed words, no shell
                words, capture_output=True, text=True, timeout=10, check=False, env={**os.environ, "LC_ALL": "C"}
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{words[0]} does not answer") from error
        return done.stdout

    def properties(self, unit: str) -> dict[str, str]:
        """Return systemd's properties of a unit."""
        names = "Id,LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestampMonotonic,UnitFileState"
        names += ",FragmentPath,DropInPaths"
        lines = self.command("systemctl", "show", unit, f"--property={names}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def usage(self, unit: str) -> list[tuple[str, int, int]]:
        """Return what a unit's processes use and may use: open files of the process nearest its limit, and tasks.

        A limit of infinity is left out.
        """
        import psutil

        names = "--property=MainPID,TasksCurrent,TasksMax"
        seen = dict(line.split("=", 1) for line in self.command("systemctl", "show", unit, names).splitlines())
        found = []
        if seen.get("TasksCurrent", "").isdigit() and seen.get("TasksMax", "").isdigit():
            found.append(("tasks", int(seen["TasksCurrent"]), int(seen["TasksMax"])))
        with contextlib.suppress(psutil.Error, ValueError):  # not running: the looks at units tell it
            main = psutil.Process(int(seen.get("MainPID") or 0) or -1)
            opened = []
            for process in (main, *main.children(recursive=True)):
                with contextlib.suppress(psutil.Error):  # ended since
                    opened.append((process.num_fds(), process.rlimit(psutil.RLIMIT_NOFILE)[0]))
            # The limit of infinity is -1 and comes last.
            found.append(("open files", *max(opened, key=lambda each: each[0] / (each[1] or 1))))
        return [each for each in found if each[2] > 0]

    def failed(self) -> list[str]:
        """Return the units of this host that have failed."""
        lines = self.command("systemctl", "list-units", "--failed", "--plain", "--no-legend").splitlines()
        return [line.split()[0] for line in lines if line.strip()]

    def listed(self) -> list[dict[str, Any]]:
        """Return the services of this host: name, unit, full, listens (pairs of address and port) and data.

        :raises OperatorError: the file is missing.
        """
        try:
            return list(json.loads(SERVICES_FILE.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise OperatorError(f"{SERVICES_FILE} is missing, which lists the services of this host") from None

    def services(self) -> dict[str, str]:
        """Return the services of this host whose unit is installed, with the unit."""
        found = {}
        for each in self.listed():
            seen = self.properties(each["unit"])
            ours = OURS in seen.get("FragmentPath", "") + seen.get("DropInPaths", "")
            if ours if each["full"] else seen.get("LoadState") == "loaded":
                found[each["name"]] = each["unit"]
        return found

    def limits(self) -> dict[str, float]:
        """Return the limits of the alerts.

        They are disk_full and memory_low (ratios), unit_flapping_seconds and records_lost (seconds) and unit_flapping
        (restarts).

        :raises OperatorError: the file is missing.
        """
        try:
            return dict(json.loads(LIMITS_FILE.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise OperatorError(f"{LIMITS_FILE} is missing, which has the limits of the alerts") from None

    def uptime(self) -> float:
        """Return the seconds since boot, by the clock of systemd's monotonic stamps."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def fetch(self, url: str) -> tuple[int, Any]:
        """Return the status and the JSON body of an HTTP response.

        :raises OSError: nothing answers.
        :raises ValueError: the response is not JSON.
        """
        answer = http.get(url, seconds=ANSWER_SECONDS)
        return answer.status_code, answer.json()

    def connects(self, host: str, port: int) -> None:
        """Connect to a port and close the connection.

        :raises OSError: no process listens there.
        """
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()

    def listening(self) -> set[tuple[str, int]]:
        """Return the addresses and ports that processes of this host listen on."""
        import psutil

        found = psutil.net_connections("tcp")
        return {(each.laddr.ip, each.laddr.port) for each in found if each.laddr and each.status == psutil.CONN_LISTEN}

    def memory(self) -> dict[str, int]:
        """Return /proc/meminfo, in KiB."""
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return {line.split(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}


def reachable(host: str) -> str:
    """Return the address at which a service that listens on ``host`` is asked."""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - nothing is bound here


Look = Callable[[Host, dict[str, str]], Iterator[Finding]]
#: Name of the look, its services (none: every host), and its function.
LOOKS: list[tuple[str, frozenset[str], Look]] = []


def look(name: str, *services: str) -> Callable[[Look], Look]:
    """Register a look.

    :param name: the name of its findings.
    :param services: it runs where the unit of one of them is installed; without any, on every host.
    """

    def register(function: Look) -> Look:
        LOOKS.append((name, frozenset(services), function))
        return function

    return register
