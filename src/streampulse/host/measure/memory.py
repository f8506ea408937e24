"""The memory of each process after some time under a steady load."""

import argparse
import time
from typing import Any

from streampulse.host.measure.load import Load
from streampulse.host.measure.units import Process, names_by_unit, processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("units", nargs="+", metavar="NAME=UNIT", help="the services whose processes are looked at")
    parser.add_argument("--rate", type=float, default=300.0, help="events per second during it (default: 300)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long before (default: 60)")


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Apply the load and return for each process its service, its name and its proportional set size in KiB.

    The generator that makes the load is listed as `generator`.

    :raises OperatorError: there is no such unit.
    """
    names = names_by_unit(args.units)
    with Load(args.rate) as running:
        time.sleep(args.seconds)
        found = processes()
        load_pid = running.pid
    rows = []
    for process in found:
        name = "generator" if process.pid == load_pid else names.get(process.unit, "")
        if name:
            rows.append({"service": name, "process": title(process), "pss_kib": process.pss_kib})
    return sorted(rows, key=lambda row: (row["service"], -row["pss_kib"]))


def title(process: Process) -> str:
    """Return a short name for a process: a JVM's main class, Python's module or script."""
    words = process.words
    # PostgreSQL's processes replace their arguments with a description.
    if words[0].startswith("postgres:"):
        return " ".join(words)[:40]
    program = words[0].rpartition("/")[2]
    if program == "java":
        classes = [word for word in words[1:] if "." in word and "/" not in word and not word.startswith("-")]
        return f"java {classes[0].rpartition('.')[2]}" if classes else program
    if program.startswith("python") and len(words) > 1:
        arguments = [word for word in words[1:] if not word.startswith("-")]
        return f"python {arguments[0].rpartition('/')[2]}" if arguments else program
    return program
