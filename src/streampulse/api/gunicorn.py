"""gunicorn's configuration: ``gunicorn -c python:streampulse.api.gunicorn streampulse.api.app:app``.

Everything that differs between hosts comes from :class:`streampulse.core.settings.ApiSettings`.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from streampulse.core import logs as logfmt
from streampulse.core.settings import ApiSettings, PostgresSettings, SettingsError, load

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
        # Workers are forks and inherit this; only the process that made the directory removes it.
        atexit.register(lambda: shutil.rmtree(base, ignore_errors=True) if os.getpid() == owner else None)
    return base


_base = _scratch()
_metrics = _base / "metrics"
# What an earlier run left would be counted again.
shutil.rmtree(_metrics, ignore_errors=True)
_metrics.mkdir()
# Read by prometheus_client when it is imported, so it must stand here before the application is.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics)
# The counters of the rate limits, which all workers share.
_limits = _base / "limits"
_limits.unlink(missing_ok=True)
os.environ["STREAMPULSE_API_LIMITS_FILE"] = str(_limits)

bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "streampulse.api.worker.ApiWorker"
worker_tmp_dir = str(_base)
# A worker whose event loop does not turn for this long is replaced. Seconds, as below.
timeout = 30
# How long requests under way may take to end when the service stops.
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


def child_exit(_server: Any, worker: Any) -> None:
    """Take a worker that ended out of the live gauges; its counters stay in the sums."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
