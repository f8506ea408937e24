"""What a file of rules is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recorded:
    """A recording rule: a series that Prometheus computes and keeps.

    :param meaning: what it tells, for the page of the documentation.
    """

    record: str
    expr: str
    meaning: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alert:
    """An alerting rule.

    :param severity: page, ticket or none.
    :param service: one of the services, ``host`` or ``slo``; or a template that gives one.
    :param expr: PromQL; a series that it returns is an alert.
    :param hold_seconds: how long it must return it.
    :param condition: the same in words, with the limits, for the page of the documentation.
    :param summary: one line with values, as Prometheus' template.
    :param description: what users notice.
    :param runbook: the page of docs/runbooks, without its ending.
    :param dashboard: the dashboard's uid, without ``streampulse-``.
    """

    name: str
    severity: str
    service: str
    expr: str
    hold_seconds: int
    condition: str
    summary: str
    description: str
    runbook: str
    dashboard: str
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Why the limit is what it is, for the page of the documentation.
    reason: str = ""
    #: Whether the alert has a host, which its dashboard then shows.
    per_host: bool = True


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after another.

    :param interval_seconds: how often; 0: as often as Prometheus looks at everything.
    """

    name: str
    rules: tuple[Recorded | Alert, ...]
    interval_seconds: int = 0
