"""``streampulse measure``: one measurement of this host's stack, as JSON."""

import argparse
import importlib
import json
import sys
from typing import Final

from streampulse.core import kafka

MEASUREMENTS: Final = {
    "latency": "time from an event to its row, of every event, under a steady load",
    "catch-up": "start the job and measure how quickly it works off what waits for it",
    "start": "time from the start of the job to its first commit",
    "recovery": "time from a kill -9 to the first commit of an event that arrived after it",
    "growth": "cost of a batch and size of tables and state over simulated days",
    "api": "events and a plain pool beside an API that is measured from elsewhere, until a signal ends them",
    "memory": "proportional set size of each process of the units, under a steady load",
    "processor": "processor time of each of the units over a while",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the measurements, each with its own options."""
    subparsers = parser.add_subparsers(dest="measurement", metavar="MEASUREMENT", required=True)
    for name, summary in MEASUREMENTS.items():
        module = importlib.import_module(f"streampulse.host.measure.{name.replace('-', '_')}")
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        module.add_arguments(subparser)
        subparser.set_defaults(measure=module.measure)


def run(args: argparse.Namespace) -> int:
    """Measure, and print the result as one line of JSON.

    :raises OperatorError: the measurement failed; the text says why.
    """
    kafka.silence()
    sys.stdout.write(json.dumps(args.measure(args)) + "\n")
    return 0
