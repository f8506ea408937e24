"""``streampulse slo``: objectives and budgets, firing alerts, lag, targets that are down."""

import argparse
import json
import sys
from collections.abc import Iterator

from streampulse.host.slo import report
from streampulse.host.slo.report import percent
from streampulse.host.slo.server import Alertmanager, Prometheus, monitoring, monitoring_or_none


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse slo``."""
    parser.add_argument(
        "--json", action="store_true", help="all of it, for programs; null where no monitoring has been set up"
    )
    parser.add_argument(
        "--history", type=int, metavar="SECONDS", help="figures, promises, targets and alerts since then, as JSON"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the report of this host's Prometheus and Alertmanager.

    :raises OperatorError: this host has no monitoring, or Prometheus does not answer.
    """
    if (arguments.json or arguments.history) and monitoring_or_none() is None:
        sys.stdout.write("null\n")
        return 0
    settings = monitoring()
    if arguments.history:
        sys.stdout.write(json.dumps(report.history(Prometheus(settings), arguments.history)) + "\n")
        return 0
    found = report.collect(Prometheus(settings), Alertmanager(settings))
    if arguments.json:
        sys.stdout.write(json.dumps(found.document()) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(found))
    return 0


def lines(found: report.Report) -> Iterator[str]:
    """Yield the report as a few plain lines; the tasks on the control machine print tables."""
    for promise in found.promises:
        shares = ", ".join(f"{window} {percent(share)}" for window, share in promise.good.items())
        yield (
            f"{promise.name}: {promise.objective * 100:g} % promised; good over {shares}; "
            f"budget left {percent(promise.budget_remaining)}"
        )
    for alert in found.alerts:
        quiet = " (silenced)" if alert.silenced else " (inhibited)" if alert.inhibited else ""
        yield f"{alert.severity}: {alert.name}{quiet}: {alert.summary}"
    for name, value in found.figures.items():
        yield f"{name}: {'not known' if value is None else f'{value:.3g}'}"
    down = [target for target in found.targets if not target.up]
    yield f"targets: {len(found.targets) - len(down)} of {len(found.targets)} up"
    for target in down:
        yield f"down: {target.job} on {target.host} ({target.error})"
    for problem in found.problems:
        yield f"not known: {problem}"
