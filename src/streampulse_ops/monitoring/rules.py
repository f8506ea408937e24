"""The rules of Prometheus and their values, as the files under ``prometheus/`` have them.

The rules are Jinja templates with ``<< >>`` around values, since ``{{ }}`` is Prometheus' own. The role ``prometheus``
renders them for hosts; here they are rendered for promtool, the tests, the dashboards and the documentation.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import jinja2
import yaml

from streampulse_ops import paths, services

#: Placeholders in links; the roles put their own addresses in their place.
RUNBOOKS: Final = "@RUNBOOKS@"
GRAFANA: Final = "@GRAFANA@"
_SIZES: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Alert:
    """One alerting rule.

    :param severity: page, ticket or none.
    :param service: a service, ``host``, ``slo``, or a template of Prometheus that gives one.
    :param runbook: the page of docs/runbooks, without its ending.
    """

    name: str
    severity: str
    service: str
    labels: dict[str, str]
    runbook: str
    #: Whether the alert has a host, which its dashboard then shows.
    per_host: bool


def document() -> dict[str, Any]:
    """Return prometheus/values.yml."""
    text = (paths.repository() / "prometheus/values.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@cache
def values() -> SimpleNamespace:
    """Return prometheus/values.yml with attributes for its keys: ``values().limits.disk_full.value``."""
    found: SimpleNamespace = json.loads(json.dumps(document()), object_hook=lambda pairs: SimpleNamespace(**pairs))
    return found


def seconds(span: str) -> int:
    """Return a span of Prometheus, such as ``40s`` or ``5m``, in seconds."""
    return int(span[:-1]) * _SIZES[span[-1]]


def environment(folder: Path) -> jinja2.Environment:
    """Return what renders the templates of a folder, with ``<< >>`` around values."""
    # The role renders with the same marks (ansible/roles/prometheus/vars/main.yml).
    return jinja2.Environment(  # noqa: S701 - no HTML
        loader=jinja2.FileSystemLoader(folder),
        variable_start_string="<<",
        variable_end_string=">>",
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


@cache
def texts() -> dict[str, str]:
    """Return each file of rules by its name, with placeholders for addresses."""
    folder = paths.repository() / "prometheus/rules"
    given = {
        **document(),
        "streampulse_services": services.entries(),
        "prometheus_runbooks_url": RUNBOOKS,
        "streampulse_grafana_url": GRAFANA,
    }
    return {
        file.name.removesuffix(".j2"): environment(folder).get_template(file.name).render(given)
        for file in sorted(folder.glob("*.yml.j2"))
    }


def write(folder: Path) -> list[Path]:
    """Write the files of rules into a new folder and return their paths."""
    folder.mkdir()
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


@cache
def groups() -> tuple[dict[str, Any], ...]:
    """Return the groups of rules, as Prometheus reads them."""
    return tuple(group for text in texts().values() for group in yaml.safe_load(text)["groups"])


@cache
def recorded() -> frozenset[str]:
    """Return the names of the series that recording rules make."""
    return frozenset(rule["record"] for group in groups() for rule in group["rules"] if "record" in rule)


@cache
def alerts() -> tuple[Alert, ...]:
    """Return every alert, in the order of the files."""
    return tuple(_alert(rule) for group in groups() for rule in group["rules"] if "alert" in rule)


def _alert(rule: dict[str, Any]) -> Alert:
    labels, annotations = dict(rule["labels"]), rule["annotations"]
    (runbook,) = re.findall(rf"^{RUNBOOKS}/([a-z0-9-]+)\.html$", annotations["runbook_url"])
    return Alert(
        name=rule["alert"],
        severity=labels.pop("severity"),
        service=labels.pop("service"),
        labels=labels,
        runbook=runbook,
        per_host="var-host=" in annotations["dashboard_url"],
    )
