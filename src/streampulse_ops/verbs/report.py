"""The report of the monitoring host as `status --full` and `top` show it."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streampulse.host.slo.report import END_TO_END, Firing, Promise, Report, percent
from streampulse_ops.cli.console import took
from streampulse_ops.hosts.command import with_environment

# A budget with a smaller part left is shown in yellow.
LOW_BUDGET = 0.25
# The probe's event counts as lost when it is not visible after this time, in seconds.
LOST_SECONDS = 30.0


def shown(report: Report, name: str) -> RenderableType:
    """Return the report as it is shown: promises, firing alerts, and a few lines of figures."""
    parts: list[RenderableType] = [_promises(report.promises), Text(), _alerts(report), Text(), _figures(report)]
    parts += [Text(f"not known: {with_environment(problem, name)}", style="yellow") for problem in report.problems]
    return Group(*parts)


def pages(report: Report) -> list[str]:
    """Return the alerts that page, by name and host."""
    return [named(alert) for alert in report.alerts if alert.pages]


def named(alert: Firing) -> str:
    """Return an alert's name, with its host or its promise in brackets."""
    about = alert.host or ("" if alert.slo in alert.name.lower() else alert.slo)
    return f"{alert.name} ({about})" if about else alert.name


def _promises(promises: Sequence[Promise]) -> Table:
    table = _table("promise", right=("5 min", "1 h", "1 d", "30 d", "objective", "budget left"))
    for promise in promises:
        shares = [_share(promise.good.get(window), promise.objective) for window in ("5m", "1h", "1d", "30d")]
        left = promise.budget_remaining
        style = "red" if left is not None and left < 0 else "yellow" if left is not None and left < LOW_BUDGET else ""
        table.add_row(promise.name, *shares, f"{promise.objective * 100:g} %", Text(percent(left), style=style))
    return table


def _share(good: float | None, objective: float) -> Text:
    return Text(percent(good), style="yellow" if good is not None and good < objective else "")


def _alerts(report: Report) -> RenderableType:
    if not report.alerts:
        return Text("no alert fires")
    table = _table("alert", "severity", "since", "what")
    for alert in report.alerts:
        quiet = "silenced" if alert.silenced else "inhibited" if alert.inhibited else ""
        style = "dim" if quiet else "bold red" if alert.severity == "page" else "yellow"
        since = took(max(report.time - alert.since, 0))
        table.add_row(named(alert), quiet or alert.severity, since, Text(alert.summary), style=style)
    return table


def _figures(report: Report) -> Table:
    figures = report.figures
    down = [target for target in report.targets if not target.up]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "lag",
        f"{_count(figures, 'lag_records')} records, the oldest {_seconds(figures, 'lag_seconds')} old; "
        f"last commit {_seconds(figures, 'commit_age_seconds')} ago",
    )
    visible = figures.get(END_TO_END)
    fresh = (
        "the probe's newest event never became visible"
        if visible is not None and visible > LOST_SECONDS
        else f"the probe's newest event visible after {_seconds(figures, END_TO_END)}"
    )
    table.add_row(
        "freshness",
        f"{fresh}, the last exact one {_seconds(figures, 'exact_age_seconds')} ago; "
        f"the API's reading {_seconds(figures, 'snapshot_age_seconds')} old",
    )
    table.add_row(
        "load",
        f"{_count(figures, 'arriving_per_second')} records/s arrive, {_count(figures, 'counted_per_second')} are "
        f"counted, {_count(figures, 'dead_letters_per_minute')} dead letters/min; "
        f"{_count(figures, 'requests_per_second')} requests/s, 99 % within {_seconds(figures, 'request_p99_seconds')}",
    )
    table.add_row("targets", f"{len(report.targets) - len(down)} of {len(report.targets)} up")
    for target in down:
        table.add_row("", Text(f"{target.job} on {target.host} is down: {target.error}", style="red"))
    return table


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in left:
        table.add_column(heading, no_wrap=heading != "what", overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _count(figures: dict[str, float | None], name: str) -> str:
    value = figures.get(name)
    return "?" if value is None else f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _seconds(figures: dict[str, float | None], name: str) -> str:
    value = figures.get(name)
    if value is None:
        return "? s"
    return f"{value * 1000:.0f} ms" if 0 < value < 1 else took(max(value, 0))
