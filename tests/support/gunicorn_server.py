"""The API as its unit runs it, gunicorn with workers, on a free port."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
from ports import free_port


class Served(Protocol):
    """A database for the API."""

    @property
    def server(self) -> Any:
        """Its server, from tests/integration/postgres.py."""

    @property
    def name(self) -> str:
        """Its name."""


@dataclass(frozen=True)
class Gunicorn:
    """A running API."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def memory_mb(self) -> float:
        """Return the resident memory of all its processes."""
        pids = [self.process.pid, *map(int, self.children())]
        return sum(_resident_kb(pid) for pid in pids) / 1024

    def children(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()


def _resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def command() -> list[str]:
    return [
        str(Path(sys.executable).with_name("gunicorn")), "-c", "python:streampulse.api.gunicorn",
        "streampulse.api.app:app",
    ]  # fmt: skip


def environment(database: Served, folder: Path, **settings: object) -> dict[str, str]:
    """Return the environment variables of the API.

    :param settings: settings of the API by their names.
    """
    return {
        **os.environ,
        **database.server.environment(database.name, "streampulse_reader"),
        "STREAMPULSE_API_PORT": str(free_port()),
        **{f"STREAMPULSE_API_{name.upper()}": str(value) for name, value in settings.items()},
        "RUNTIME_DIRECTORY": str(folder),
        "NOTIFY_SOCKET": str(folder / "notify"),
    }


@contextmanager
def running(database: Served, **settings: object) -> Iterator[Gunicorn]:
    """Start the API, wait until it answers, and end it."""
    with tempfile.TemporaryDirectory(prefix="streampulse-test-api-") as name:
        folder = Path(name)
        variables = environment(database, folder, **settings)
        with start(variables, folder) as process:
            yield Gunicorn(process, int(variables["STREAMPULSE_API_PORT"]), folder)


@contextmanager
def start(variables: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start gunicorn with some variables, wait until it reports readiness, and end it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver, (folder / "log").open("wb") as log:
        receiver.bind(variables["NOTIFY_SOCKET"])
        receiver.settimeout(30)
        process = subprocess.Popen(command(), env=variables, stdout=log, stderr=log)
        try:
            said = receiver.recv(1000)
            assert b"READY=1" in said, said
            # gunicorn is ready before its workers: a request waits for them, on a busy machine for many seconds.
            httpx.get(f"http://127.0.0.1:{variables['STREAMPULSE_API_PORT']}/health", timeout=90)
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)
