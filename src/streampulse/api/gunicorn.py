"""gunicorn's configuration: ``gunicorn -c python:streampulse.api.gunicorn streampulse.api.app:app``.

Everything that differs between hosts comes from :class:`streampulse.core.settings.ApiSettings`.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from streampulse.core import logs as logfmt
from streampulse.core.errors import SettingsError
from streampulse.core.settings import ApiSettings, PostgresSettings, load

#: Bytes that the kernel buffers for a client that does not read. It allocates twice as much.
SEND_BUFFER: Final = 65_536
#: The kernel closes a connection if its client reads nothing for this long, in milliseconds.
UNREAD_MS: Final = 30_000

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
    "handlers": {
        "stdout": {"class": "logging.StreamHandler", "formatter": "logfmt", "stream": "ext://sys.stdout"},
    },
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["stdout"], "propagate": False},
        "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": False},
    },
}


def when_ready(server: Any) -> None:
    """Bound the memory and time of a client that does not read. Accepted connections inherit both options."""
    for listener in server.LISTENERS:
        # The kernel's own buffers would let a reader of /live fall megabytes behind.
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)


def child_exit(_server: Any, worker: Any) -> None:
    """Take a worker that ended out of the live gauges; its counters stay in the sums."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
