"""gunicorn's configuration: ``gunicorn -c python:streampulse.api.gunicorn streampulse.api.app:app``.

Everything that differs between hosts comes from :class:`streampulse.core.settings.ApiSettings`.
"""

import atexit
import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from gunicorn.systemd import SD_LISTEN_FDS_START  # type: ignore[import-untyped]

from streampulse.core import logs as logfmt
from streampulse.core.errors import SettingsError
from streampulse.core.settings import ApiSettings, PostgresSettings, load

#: Bytes that the kernel buffers for a client that does not read. It allocates twice as much.
SEND_BUFFER: Final = 65_536
#: The kernel closes a connection if its client reads nothing for this long, in milliseconds.
UNREAD_MS: Final = 30_000
#: Name of the listening socket in systemd's store; the unit has it too.
KEPT_NAME: Final = "http"

try:
    _settings = load(ApiSettings)
    load(PostgresSettings)  # a missing credential ends the start here, in one line, and not each worker
except SettingsError as error:
    prefix = logfmt.journal_prefix(logging.ERROR, sys.stderr)
    print(f"{prefix}streampulse: {error}", file=sys.stderr)  # noqa: T201 - the operator's line
    sys.exit(1)


def _scratch() -> Path:
    """Return a directory for the workers' metrics: systemd's for the unit, or a temporary one."""
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    base = Path(runtime.split(":")[0]) if runtime else Path(tempfile.mkdtemp(prefix="streampulse-api-"))
    if not runtime:
        owner = os.getpid()
        # Workers are forks and inherit this handler. Only the process that made the directory removes it.
        atexit.register(lambda: shutil.rmtree(base, ignore_errors=True) if os.getpid() == owner else None)
    return base


def _notify(message: str, *descriptors: int) -> None:
    """Send a message, and descriptors, to systemd. Outside of a unit nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            socket.send_fds(channel, [message.encode()], descriptors)


def _drop_another_address() -> None:
    """Close the socket that systemd kept through a restart if the settings ask for another address.

    Without ``LISTEN_FDS`` gunicorn opens a socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return
    with contextlib.closing(socket.socket(fileno=os.dup(SD_LISTEN_FDS_START))) as kept:
        if kept.getsockname()[:2] != (_settings.host, _settings.port):
            _notify(f"FDSTOREREMOVE=1\nFDNAME={KEPT_NAME}")
            os.close(SD_LISTEN_FDS_START)
            del os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"]


_drop_another_address()
_base = _scratch()
_metrics = _base / "metrics"
# Files of an earlier run would be counted again.
shutil.rmtree(_metrics, ignore_errors=True)
_metrics.mkdir()
# prometheus_client reads this when the application imports it.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics)

bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "streampulse.api.worker.ApiWorker"
worker_tmp_dir = str(_base)
# gunicorn replaces a worker if its event loop stands still for this long. Seconds, as below.
timeout = 30
# Time for requests under way when the service stops.
graceful_timeout = 10
keepalive = 75
backlog = 2048
accesslog = None
proc_name = "streampulse-api"
control_socket_disable = True
logconfig_dict: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"logfmt": {"()": "streampulse.core.logs.formatter"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "logfmt", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["stdout"], "propagate": False},
        "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": False},
    },
}


def when_ready(server: Any) -> None:
    """Set options that accepted connections inherit, and give systemd a copy of the socket, for the next restart.

    The options bound the memory and the time of a client that does not read.
    """
    for listener in server.LISTENERS:
        # The kernel's own buffers would let a reader of /live fall megabytes behind.
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        # A socket that systemd has handed over is in its store already.
        if not server.systemd:
            _notify(f"FDSTORE=1\nFDNAME={KEPT_NAME}", listener.sock.fileno())


def child_exit(_server: Any, worker: Any) -> None:
    """Take a worker that ended out of the live gauges; its counters stay in the sums."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
