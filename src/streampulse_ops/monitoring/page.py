"""docs/observability.md: every promise, alert and metric of ours, from the code that has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streampulse.core import limits as values
from streampulse.core.limits import MINUTE, Objective, Unit, shown, words
from streampulse_ops.docs.markdown import table
from streampulse_ops.monitoring import alerts, metrics, recording, runbooks
from streampulse_ops.monitoring.model import Alert, Recorded

FILE: Final = "docs/observability.md"
#: The method's own description.
WORKBOOK: Final = "https://sre.google/workbook/alerting-on-slos/"

_HEAD: Final = """\
# Observability

<!-- Made by `./inv docs` from src/streampulse_ops/monitoring. Change the code that it describes, not this page. -->

`./inv up --full` sets monitoring up ([operations](operations.md#full-stack)). Prometheus asks every target each
{scrape} s, evaluates the rules of `prometheus/rules`, and hands alerts to Alertmanager, which tells people. Every
limit on this page has one place, `src/streampulse/core/limits.py`: the rules, the dashboards' colours, `inv
doctor` and this page are made from it.

Where to look: `./inv status --full` and `./inv top` in the terminal ([operations](operations.md#at-a-glance)), `./inv
open grafana` for the [dashboards](dashboards.md), `./inv open prometheus` for figures and rules, `./inv open
alertmanager` for what is firing. What an alert's `runbook_url` leads to is a page of [docs/runbooks](runbooks) that
Prometheus itself serves; [when an alert comes](operations.md#when-an-alert-comes) says how to use it.
"""

_MEASURED: Final = """\
How a promise is read: the share of good events over 30 days must be at least the objective. What may be bad is the
*budget*: 95 % leaves 5 %. `slo:error_budget_remaining:ratio30d` says what is left of it: 1 is untouched, 0.4 means
that 60 % are spent, less than 0 that the promise is broken. `slo:error_ratio:rate1h` and its like, over 5 min to 30
days, say how bad it was; `sli:error_ratio:…` the same for each measurement by itself.

- Of two measurements the worse one counts: the API counts what it answered, the probe what it was not answered.
  The API times a request from where it is worked on; how long it waited before that, for the connection, for a busy
  API to read it and for its turn, is in the probe's time.
- The probe's part of correctness is promised twice as strictly as that of dead letters, so one of its bad events
  weighs as two.
- Without events there is no share, neither good nor bad.
- Time that was not measured spends nothing: a machine that has just come up, and has lost the two events that it has
  seen, has spent two events of a month and not all of an hour. A probe that is away is told by `ProbeDown`.
- A lag that the running probe cannot tell counts as bad.
"""

_BURN: Final = """\
An alert on a budget says that it is being spent too quickly. It follows the Google SRE Workbook, chapter [Alerting on
SLOs]({workbook}), section 6, "Multiwindow, Multi-Burn-Rate Alerts". The *burn rate* is the share of bad events over
the budget: at 1 the budget lasts for exactly 30 days. An alert needs two windows past the same rate: a long one, so
that enough is spent to matter, and a short one, so that it still goes on. When the trouble is over, the short window
ends the alert.
"""

_AFTER_BURN: Final = """\
`slo:burn_rate:rate1h` and its like are the rates. Over the long windows, what was not measured counts as spent by
nobody, and a window with too few events (see the table of promises) says nothing. Shares of five minutes are summed
once a minute, so an alert comes up to about four minutes later than the table says, and ends up to five minutes
later.

While something is down whose own alert has paged, and for as long after that as the windows that page still hold it
(`RecentOutage`), budgets that it spends do not page as well. They are still tickets when they burn over days.
"""

_QUIET: Final = """\
`severity` says what becomes of an alert: a `page` wakes somebody, since users notice or soon will; a `ticket` is for
working hours; `none` is for nobody. `service` is one of the services, `host`, or `slo`; `host` is the inventory's
name. Alertmanager groups by alert, host and service, repeats pages every 4 hours and tickets every day, and sends
both to every receiver that is set (`alertmanager_*`, [settings](reference/settings.md#role-alertmanager)).

What follows from something that somebody has been told of is kept quiet (`prometheus/alertmanager.yml.j2`):

- a host that is down: all of that host, and what follows from its services;
- Kafka, PostgreSQL, Spark's master or workers away as a whole (`ServiceAway`): the job, the pipeline, the probe, their
  budgets; PostgreSQL also the API's errors;
- what just was away, for three minutes more, and for twelve of tickets that count over longer (`OutageJustOver`,
  `OutageLatelyOver`): the same;
- the job: the pipeline, the probe, executors, their budgets;
- the API as a whole: its errors, the probe, its budgets; on one of several hosts: that host's errors;
- a service: its unit;
- a budget's page: its ticket.

One host of several that is down keeps nothing quiet that happens on others: with one broker of three, one worker of two
or one API of two down, whatever stands still has another cause.

An alert that is itself kept quiet still keeps others quiet. Before work that would ring alarms:
[`./inv silence`](operations.md#maintenance).
"""

_METRICS: Final = """\
Ours, by the service whose scrape shows them. The job, the generator and the probe also show what their library tells
of the process (`process_*`, `python_*`). What others show (`node_*`, `pg_*`, `kafka_*`, Spark's, Prometheus' and
Alertmanager's own) is in their documentation; a label `host` and `job` comes with each.
"""

_RECORDED: Final = """\
Computed by Prometheus from what is scraped, and kept as long. A name says over which labels and over which window.
"""


def page(root: Path) -> str:
    """Return the page.

    :param root: the checkout.
    """
    parts = [
        _HEAD.format(scrape=values.SCRAPE_SECONDS),
        "## Promises\n",
        *table(("promise", "over 30 days", "why"), _promises()),
        "",
        *table(("promise", "measurement", "events", "good when", "objective", "enough events"), _indicators()),
        "",
        _MEASURED,
        "## When a budget burns\n",
        _BURN.format(workbook=WORKBOOK),
        *table(("burn rate", "over", "and over", "spent by then", "told as"), _burns()),
        "",
        "How long everything must be bad until the first of them:\n",
        *table(("promise", *(f"{burn.factor:g} times" for burn in values.BURNS)), _all_bad()),
        "",
        _AFTER_BURN,
        "## Alerts\n",
        _QUIET,
        *table(("alert", "severity", "fires when", "what users notice", "why this much"), _alerts(root)),
        "",
        "## Metrics\n",
        _METRICS,
        *_metrics(),
        "## Recorded series\n",
        _RECORDED,
        *table(("series", "labels", "windows", "meaning"), _recorded()),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _promises() -> Iterator[tuple[str, ...]]:
    for slo in values.OBJECTIVES:
        yield f"`{slo.name}`", slo.promise, slo.reason


def _indicators() -> Iterator[tuple[str, ...]]:
    for slo in values.OBJECTIVES:
        for sli in slo.indicators:
            objective = shown(sli.objective, Unit.RATIO)
            yield f"`{slo.name}`", f"`{sli.name}`", sli.events, sli.good, objective, f"{sli.minimum_events:,}"


def _burns() -> Iterator[tuple[str, ...]]:
    for burn in values.BURNS:
        windows = words(burn.long_seconds), words(burn.short_seconds)
        yield f"{burn.factor:g}", *windows, f"{burn.spent:.0%}".replace("%", " %"), burn.severity


def _all_bad() -> Iterator[tuple[str, ...]]:
    for slo in values.OBJECTIVES:
        yield f"`{slo.name}`", *(_minutes(slo, burn) for burn in values.BURNS)


def _minutes(slo: Objective, burn: values.Burn) -> str:
    """Return how long all events must be bad until a burn alarms: by the measurement that is promised most strictly."""
    strictest = max(sli.objective for sli in slo.indicators)
    seconds = burn.factor * (1 - strictest) * burn.long_seconds
    return f"{seconds:.0f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.0f} min"


def _alerts(root: Path) -> Iterator[tuple[str, ...]]:
    known = runbooks.load(root)
    order = {alerts.PAGE: 0, alerts.TICKET: 1, alerts.NONE: 2}
    for alert in sorted(alerts.everything(), key=lambda each: order[each.severity]):
        name = f"`{alert.name}`"
        if alert.runbook in known:
            name = f"[{name}](runbooks/{alert.runbook}.md)"
        yield name, alert.severity, alert.condition, alert.description, _reason(alert)


def _reason(alert: Alert) -> str:
    return alert.reason or ("[see above](#when-a-budget-burns)" if alert.name.endswith("BudgetBurning") else "")


def _metrics() -> Iterator[str]:
    found = metrics.catalogue()
    for service in metrics.MODULES:
        yield f"### Of the {'API' if service == 'api' else service}\n"
        yield from table(
            ("metric", "type", "labels", "meaning"),
            (
                (f"`{each.name}`", each.kind, ", ".join(f"`{name}`" for name in each.labels), each.help)
                for each in found
                if each.service == service
            ),
        )
        yield ""


def _recorded() -> Iterator[tuple[str, ...]]:
    """Yield the recorded series; those that differ in their window only are one row."""
    windows: dict[str, list[str]] = {}
    first: dict[str, Recorded] = {}
    for group in recording.groups():
        for rule in group.rules:
            if isinstance(rule, Recorded):
                base, _, window = rule.record.partition(":rate")
                first.setdefault(base, rule)
                known = windows.setdefault(base, [])
                if window and window not in known:
                    known.append(window)
    for base, rule in first.items():
        found = windows[base]
        name = f"{base}:rateWINDOW" if len(found) > 1 else rule.record
        yield f"`{name}`", ", ".join(f"`{each}`" for each in _labels(rule)), ", ".join(found), rule.meaning


def _labels(rule: Recorded) -> list[str]:
    """Return the labels of a recorded series: its own, or those that its name says that it is by."""
    if rule.labels:
        return list(rule.labels)
    level = rule.record.partition(":")[0]
    return {"sli": ["slo", "sli"], "slo": ["slo"]}.get(level, [])
