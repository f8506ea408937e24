"""The host's settings of Prometheus and Alertmanager, if it has any."""

from __future__ import annotations

import os

from streampulse.core.errors import OperatorError
from streampulse.core.settings import MonitoringSettings, load


def monitoring_or_none() -> MonitoringSettings | None:
    """Return the addresses of Prometheus and Alertmanager, None if this host has no such settings."""
    return load(MonitoringSettings) if os.environ.get("STREAMPULSE_MONITORING_PROMETHEUS_URL") else None


def monitoring() -> MonitoringSettings:
    """Return the addresses of Prometheus and Alertmanager.

    :raises OperatorError: this host has no such settings.
    """
    settings = monitoring_or_none()
    if settings is None:
        raise OperatorError("this host has no monitoring, or you may not read its settings: inv up --full")
    return settings
