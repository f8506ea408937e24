"""From the start of the job to its first commit, with events waiting and coming in, as often as asked."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from streampulse.measure.ledger import LedgerWatch
from streampulse.measure.load import Load
from streampulse.measure.units import systemctl
from streampulse.settings import PostgresSettings, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--unit", required=True, help="unit of the job")
    parser.add_argument("--repeats", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--rate", type=float, default=300.0, help="events per second meanwhile (default: 300)")
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="FILE", help="class-data archives to remove before each start"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Stop and start the job and return the seconds from each start to the first commit after it.

    :raises OperatorError: the job does not start.
    """
    seconds = []
    archives = [Path(name) for name in args.without]
    found = 0
    with Load(args.rate), LedgerWatch(load(PostgresSettings)) as watch:
        for _ in range(args.repeats):
            systemctl("stop", args.unit)
            found += sum(1 for file in archives if file.exists())
            for file in archives:
                file.unlink(missing_ok=True)
            # What is still to be seen of the commits before the stop.
            time.sleep(0.2)
            before = len(watch.commits)
            begun = time.time()
            systemctl("start", "--no-block", args.unit)
            watch.wait(lambda seen, before=before: len(seen.commits) > before, 180, "the job has committed")  # type: ignore[misc]
            seconds.append(watch.commits[before].at - begun)
    return {"seconds": seconds, "archives_removed": found}
