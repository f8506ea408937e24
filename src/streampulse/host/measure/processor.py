"""The processor time of each service over an interval, under a steady load or none."""

import argparse
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable

from streampulse.host.measure.load import Load
from streampulse.host.measure.units import Process, names_by_unit, processes

#: Time before the first sample, in which a load warms up. Without a load it is the same, so that both compare.
_SETTLE_SECONDS = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("units", nargs="+", metavar="NAME=UNIT", help="the services whose processes are looked at")
    parser.add_argument("--rate", type=float, default=0.0, help="events per second during it (default: no load)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default: 60)")


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Apply the load, if any, and return the cores that each service used: 0.1 is a tenth of one.

    :raises OperatorError: there is no such unit.
    """
    names = names_by_unit(args.units)
    with Load(args.rate) if args.rate > 0 else contextlib.nullcontext():
        time.sleep(_SETTLE_SECONDS)
        before, begun = processes(), time.monotonic()
        time.sleep(args.seconds)
        after, elapsed = processes(), time.monotonic() - begun
    return cores(names, before, after, elapsed)


def cores(
    names: dict[str, str], before: Iterable[Process], after: Iterable[Process], elapsed: float
) -> dict[str, float]:
    """Return the cores that each service used between two samples of the processes.

    The processor time of an ended process is added to its parent's, so sums over a unit are compared. If the parent has
    ended too, the process is reaped by PID 1, which gets the time: that unit's figure is too low, even below zero.

    :param names: service names by unit; other units are left out.
    :param elapsed: seconds between the samples.
    """
    used: dict[str, float] = defaultdict(float)
    for sign, look in ((-1, before), (1, after)):
        for process in look:
            if process.unit in names:
                used[names[process.unit]] += sign * process.cpu_seconds
    return {name: used[name] / elapsed for name in sorted(set(names.values()))}
