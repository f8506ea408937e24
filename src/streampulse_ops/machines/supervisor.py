"""Keep one nspawn machine running: restart it when it reboots, end when it is shut down.

A separate process, detached from the terminal and from the task that started it. It uses the standard library only, so
that a change of the virtual environment does not affect running machines.

Usage: supervisor.py STATE_FILE CGROUP_FILE... -- COMMAND...
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

REBOOT = 133
# A machine that reboots faster than this, this many times in a row, counts as broken.
FAST_SECONDS = 3.0
FAST_LIMIT = 5


def started_at(pid: int) -> str | None:
    """Return a process's start in kernel ticks: with the pid it identifies the process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def record(file: Path, machine: int | None) -> None:
    """Save the identities of both processes."""
    known = {"supervisor": os.getpid(), "machine": machine}
    content = {role: {"pid": pid, "started": started_at(pid)} for role, pid in known.items() if pid}
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(file)


def enter(groups: list[str]) -> None:
    """Move this process into the machine's control groups; its children start there."""
    for group in groups:
        Path(group).write_text(str(os.getpid()), encoding="utf-8")


def keep(state: Path, command: list[str]) -> int:
    """Run the machine until it is shut down and return nspawn's last exit code."""
    stopping = False
    machine: subprocess.Popen[bytes] | None = None

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        if machine is not None:
            machine.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fast = 0
    while True:
        begun = time.monotonic()
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the provider passes a list
        record(state, machine.pid)
        code = machine.wait()
        fast = fast + 1 if time.monotonic() - begun < FAST_SECONDS else 0
        if code != REBOOT or stopping or fast >= FAST_LIMIT:
            return code


def main() -> int:
    """Read the arguments and keep the machine running."""
    split = sys.argv.index("--")
    state, groups, command = Path(sys.argv[1]), sys.argv[2:split], sys.argv[split + 1 :]
    enter(groups)
    record(state, None)
    try:
        return keep(state, command)
    finally:
        state.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
