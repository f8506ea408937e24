"""Spark reading the topic with ``from_json`` only: the reference for the job's own rate.

It replaces the stopped job: the same user, environment, properties and ``spark-submit``, the same master and executor.
Only the program differs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final

from streampulse.core.errors import OperatorError
from streampulse.host.measure.units import properties, systemctl

_PROGRAM: Final = "spark_reading.py"
# Properties that the transient unit copies from the job's unit.
_TAKEN_OVER: Final = (
    "User", "Group", "SupplementaryGroups", "Environment", "EnvironmentFile", "WorkingDirectory", "LimitNOFILE",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--unit", required=True, help="unit of the job, which is stopped")
    parser.add_argument("--timeout", type=float, default=600.0, help="in seconds (default: 600)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Let Spark read the whole topic and return the rate of the batches after the first, in records a second.

    :raises OperatorError: the job runs, or Spark fails.
    """
    if properties(args.unit, "ActiveState")["ActiveState"] == "active":
        raise OperatorError(f"{args.unit} runs and has the executor: systemctl stop {args.unit}")
    command = transient(systemctl("cat", args.unit), Path(__file__).with_name(_PROGRAM))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise OperatorError(f"Spark did not read the topic within {args.timeout:g} s") from None
    answers = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    if done.returncode != 0 or not answers:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise OperatorError(f"Spark could not read the topic: {said[-1]}")
    return rate(json.loads(answers[-1]))


def rate(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rate of the batches after the first, from each batch's records and seconds.

    :raises OperatorError: there was no second batch.
    """
    counted = [batch for batch in batches if batch["records"]][1:]
    if not counted:
        raise OperatorError("the topic was one batch, which says nothing about the rate: give it more --backlog")
    records, seconds = sum(batch["records"] for batch in counted), sum(batch["seconds"] for batch in counted)
    return {"records_per_second": records / seconds, "batches": batches}


def transient(unit: str, program: Path) -> list[str]:
    """Return the command that runs a program in the job's place.

    :param unit: the text of the job's unit, whose ``ExecStart`` ends with the job's own program.
    """
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
    submit: list[str] = []
    for line in unit.splitlines():
        name, equals, value = line.partition("=")
        if equals and name in _TAKEN_OVER:
            command.append(f"--property={name}={value}")
        elif name == "ExecStart":
            submit = shlex.split(value)
    if not submit:
        raise OperatorError("the job's unit has no ExecStart: inv up")
    return [*command, *submit[:-1], str(program)]
