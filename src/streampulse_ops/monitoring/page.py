"""docs/reference/monitoring.md: lists of the promises, alerts and metrics that there are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streampulse_ops.docs.markdown import table
from streampulse_ops.monitoring import metrics, rules

FILE: Final = "docs/reference/monitoring.md"
_HEAD: Final = """\
# Monitoring

<!-- Made by `./inv docs`. Change the code that it describes, not this page. -->

How to read all this: [observability](../observability.md). Limits and reasons: `prometheus/values.yml`. Expressions:
`prometheus/rules`.

## Promises
"""
_METRICS: Final = """\
## Metrics

By the service whose scrape shows them. Job, generator and probe also show their process (`process_*`, `python_*`).
Prometheus adds the labels `host` and `job`.
"""


def page(_: Path) -> str:
    """Return the page."""
    values = rules.values()
    promises = ((f"`{name}`", each.promise, each.reason) for name, each in vars(values.objectives).items())
    burns = ((f"{each.factor:g}", each.long, each.short, f"{each.spent:.0%}", each.severity) for each in values.burns)
    parts = [
        _HEAD,
        *table(("promise", "over 30 days", "why"), promises),
        "",
        *table(("burn rate", "over", "and over", "budget spent by then", "told as"), burns),
        "",
        "## Alerts\n",
        *(f"- {severity}: {', '.join(_links(severity))}" for severity in ("page", "ticket", "none")),
        "",
        _METRICS,
        *_metrics(),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _links(severity: str) -> Iterator[str]:
    for alert in rules.alerts():
        if alert.severity == severity:
            yield f"[`{alert.name}`](../runbooks/{alert.runbook}.md)"


def _metrics() -> Iterator[str]:
    for service in metrics.MODULES:
        yield f"### Of the {'API' if service == 'api' else service}\n"
        yield from table(
            ("metric", "type", "labels", "meaning"),
            (
                (f"`{each.name}`", each.kind, ", ".join(f"`{name}`" for name in each.labels), each.help)
                for each in metrics.catalogue()
                if each.service == service
            ),
        )
        yield ""
