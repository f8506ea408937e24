"""Processes identified by pid and start time, so that no other process is ever ended."""

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from streampulse_ops.machines.supervisor import started_at


@dataclass(frozen=True)
class Process:
    """One process, distinct from a later one with the same pid."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Return whether the process still runs."""
        return started_at(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still exists."""
        if self.alive():
            os.kill(self.pid, number)

    def ended_within(self, seconds: float) -> bool:
        """Wait for the process's end; return whether it came in time."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def recorded(file: Path) -> dict[str, Process]:
    """Read a supervisor's state file: the supervisor and the machine, those that are alive."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {role: Process(int(entry["pid"]), str(entry["started"])) for role, entry in content.items()}
    return {role: process for role, process in found.items() if process.alive()}
