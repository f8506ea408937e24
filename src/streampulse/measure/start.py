"""From the start of the job to its first commit, with events waiting and coming in, as often as asked."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

from streampulse.measure.ledger import LedgerWatch
from streampulse.measure.load import Load
from streampulse.measure.units import EXECUTOR, processes, properties, systemctl
from streampulse.settings import PostgresSettings, load

_ARCHIVE: Final = "-XX:SharedArchiveFile="


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--unit", required=True, help="unit of the job")
    parser.add_argument("--repeats", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--rate", type=float, default=300.0, help="events per second meanwhile (default: 300)")
    parser.add_argument(
        "--without-archives", action="store_true", help="remove the class-data archives of the job before each start"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Stop and start the job and return the seconds from each start to the first commit after it.

    ``archives`` is how many class-data archives the job's JVMs are told to use, ``there`` how many of them were there
    at a start, on average.

    :raises OperatorError: the job does not start.
    """
    seconds = []
    archives = _archives(args.unit)
    there = 0
    with Load(args.rate), LedgerWatch(load(PostgresSettings)) as watch:
        for _ in range(args.repeats):
            systemctl("stop", args.unit)
            if args.without_archives:
                for file in archives:
                    file.unlink(missing_ok=True)
            there += sum(1 for file in archives if file.exists())
            # What is still to be seen of the commits before the stop.
            time.sleep(0.2)
            before = len(watch.commits)
            begun = time.time()
            systemctl("start", "--no-block", args.unit)
            watch.wait(lambda seen, before=before: len(seen.commits) > before, 180, "the job has committed")  # type: ignore[misc]
            seconds.append(watch.commits[before].at - begun)
    return {"seconds": seconds, "archives": len(archives), "there": there / args.repeats}


def _archives(unit: str) -> list[Path]:
    """Return the class-data archives that the job's JVMs were started with, as their command lines name them."""
    named = properties(unit)["Id"]
    found = set()
    for process in processes():
        if process.unit == named or EXECUTOR in process.words:
            found |= {word.partition("=")[2] for word in process.words if word.startswith(_ARCHIVE)}
    return [Path(name) for name in sorted(found)]
