"""Time from the start of the job to its first commit, with events waiting and arriving, repeatedly."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from streampulse.core.settings import PostgresSettings, load
from streampulse.host.measure.ledger import LedgerWatch
from streampulse.host.measure.load import Load
from streampulse.host.measure.units import EXECUTOR, processes, properties, systemctl

_ARCHIVE: Final = "-XX:SharedArchiveFile="
_ARCHIVES_SECONDS: Final = 180.0
_SETTLE_SECONDS: Final = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--unit", required=True, help="unit of the job")
    parser.add_argument("--repeats", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--rate", type=float, default=300.0, help="events per second during it (default: 300)")
    parser.add_argument(
        "--without-archives",
        action="store_true",
        help="have the class-data archives of the job out of the way during the measurement",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Stop and start the job and return the seconds from each start to the first commit after it.

    ``archives`` is the number of class-data archives that the job's JVMs are told to use; ``there`` is the number that
    exist.

    :raises OperatorError: the job does not start.
    """
    archives = _archives(args.unit)
    with ExitStack() as put_back:
        if args.without_archives:
            for file in archives:
                put_back.enter_context(_aside(file))
        else:
            _wait_for(archives)
        there = sum(1 for file in archives if file.exists())
        seconds = _starts(args.unit, args.repeats, args.rate)
    return {"seconds": seconds, "archives": len(archives), "there": there}


def _starts(unit: str, repeats: int, rate: float) -> list[float]:
    seconds = []
    with Load(rate), LedgerWatch(load(PostgresSettings)) as watch:
        for _ in range(repeats):
            time.sleep(_SETTLE_SECONDS)
            systemctl("stop", unit)
            # Commits from before the stop that are still to be seen.
            time.sleep(0.2)
            before = len(watch.commits)
            begun = time.time()
            systemctl("start", "--no-block", unit)
            watch.wait(lambda seen, before=before: len(seen.commits) > before, 180, "the job has committed")  # type: ignore[misc]
            seconds.append(watch.commits[before].at - begun)
    return seconds


def _wait_for(archives: Sequence[Path]) -> None:
    """Wait for archives under construction: a new host makes them after the job's first start."""
    deadline = time.monotonic() + _ARCHIVES_SECONDS
    while not all(file.exists() for file in archives) and time.monotonic() < deadline:
        time.sleep(1.0)


@contextmanager
def _aside(file: Path) -> Iterator[None]:
    """Move a file away during the body, then restore it over any replacement."""
    away = file.with_name(f"{file.name}.aside")
    there = file.exists()
    if there:
        file.rename(away)
    try:
        yield
    finally:
        if there:
            away.replace(file)


def _archives(unit: str) -> list[Path]:
    """Return the class-data archives on the command lines of the job's JVMs."""
    named = properties(unit)["Id"]
    found = set()
    for process in processes():
        if process.unit == named or EXECUTOR in process.words:
            found |= {word.partition("=")[2] for word in process.words if word.startswith(_ARCHIVE)}
    return [Path(name) for name in sorted(found)]
