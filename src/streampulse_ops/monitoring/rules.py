"""The files under prometheus/rules, as text: YAML that people can read, made from the rules that the code has."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Final

from streampulse.core.limits import span
from streampulse_ops.monitoring import alerts, recording
from streampulse_ops.monitoring.model import Alert, Group, Recorded

FOLDER: Final = "prometheus/rules"
#: Markers in annotations; the role prometheus puts its own addresses in their place.
RUNBOOKS: Final = "@RUNBOOKS@"
GRAFANA: Final = "@GRAFANA@"

_HEADER: Final = """\
---
# Made by `./inv docs` from src/streampulse_ops/monitoring. Change the code, not this file.
"""
_WIDTH: Final = 110

FILES: Final[dict[str, Callable[[], tuple[Group, ...]]]] = {
    f"{FOLDER}/recording.yml": recording.groups,
    f"{FOLDER}/slo.yml": alerts.promise_groups,
    f"{FOLDER}/alerts.yml": alerts.groups,
}


def file(name: str) -> str:
    """Return the text of a file of rules.

    :param name: its path in the repository, one of :data:`FILES`.
    """
    return render(FILES[name]())


def render(groups: tuple[Group, ...]) -> str:
    """Return a file of rules."""
    return _HEADER + "groups:\n" + "\n".join(line for group in groups for line in _group(group)) + "\n"


def _group(group: Group) -> Iterator[str]:
    yield f"  - name: {group.name}"
    if group.interval_seconds:
        yield f"    interval: {span(group.interval_seconds)}"
    yield "    rules:"
    for rule in group.rules:
        yield from _recorded(rule) if isinstance(rule, Recorded) else _alert(rule)


def _recorded(rule: Recorded) -> Iterator[str]:
    yield f"      - record: {rule.record}"
    yield from _block("expr", "|", rule.expr.splitlines(), 8)
    if rule.labels:
        yield "        labels:"
        for name, value in rule.labels.items():
            yield f"          {name}: {value}"


def _alert(rule: Alert) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    yield from _block("expr", "|", rule.expr.splitlines(), 8)
    if rule.hold_seconds:
        yield f"        for: {span(rule.hold_seconds)}"
    yield "        labels:"
    for name, value in alert_labels(rule).items():
        yield from _folded(name, value, 10)
    yield "        annotations:"
    for name, value in alert_annotations(rule).items():
        yield from _folded(name, value, 10)


def alert_labels(rule: Alert) -> dict[str, str]:
    """Return the labels that a rule gives its alerts, beside those of its series."""
    return {"severity": rule.severity, "service": rule.service, **rule.labels}


def alert_annotations(rule: Alert) -> dict[str, str]:
    """Return what a rule says about its alerts."""
    host = "?var-host={{ $labels.host }}" if rule.per_host else ""
    return {
        "summary": rule.summary,
        "description": rule.description,
        "runbook_url": f"{RUNBOOKS}/{rule.runbook}.html",
        "dashboard_url": f"{GRAFANA}/d/streampulse-{rule.dashboard}{host}",
    }


def _folded(name: str, value: str, indent: int) -> Iterator[str]:
    """Yield a value that YAML folds back into one line, whatever characters it has."""
    if re.fullmatch(r"[a-z][a-z-]*", value):
        yield f"{' ' * indent}{name}: {value}"
        return
    yield from _block(
        name, ">-", textwrap.wrap(value, _WIDTH - indent, break_long_words=False, break_on_hyphens=False), indent
    )


def _block(name: str, style: str, lines: list[str], indent: int) -> Iterator[str]:
    yield f"{' ' * indent}{name}: {style}"
    for line in lines:
        yield f"{' ' * (indent + 2)}{line}" if line else ""
