"""How many faults `inv test --changed` finds of those that the whole suite finds.

``python -m streampulse_ops.quality.faults --seed 11`` plants single-line faults in a clean checkout, one at a time, and
runs the unit and integration tests that ``--changed`` selects. What these do not find is planted together, for one run
of the tests that were left out; each file that fails there is run again with each fault alone. The last lines are a
table. A selection is a part of the suite, so the whole suite finds what a selection finds.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.quality import changed

PARTS = ("tests/unit/", "tests/integration/")
# Of ten faults six are in Python, the others in files that Ansible, PostgreSQL, systemd and Prometheus read.
PYTHON = ("src/**/*.py",)
OTHERS = (
    "sql/*.sql",
    "ansible/roles/*/tasks/*.yml",
    "ansible/roles/*/defaults/*.yml",
    "prometheus/*.yml",
    "prometheus/rules/*.j2",
    "systemd/*.j2",
)
SHARE_OF_PYTHON = 0.6
REPLACEMENTS = (
    (r" == ", " != "), (r" != ", " == "), (r" <= ", " < "), (r" >= ", " > "), (r" < ", " <= "), (r" > ", " >= "),
    (r" and ", " or "), (r" or ", " and "), (r"\bif not ", "if "),
    (r"(?<=[\w)]) \+ ", " - "), (r"(?<=[\w)]) - ", " + "),
    (r"\bTrue\b", "False"), (r"\bFalse\b", "True"), (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
    (r"\bNOT NULL\b", ""), (r"\bstarted\b", "stopped"), (r"\bpresent\b", "absent"),
    (r"(?<![\w.])[1-9]\d*(?![\w.])", "7"),
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One line of one file, and its replacement."""

    file: str
    line: int
    before: str
    after: str


def faults_of(root: Path, patterns: Sequence[str]) -> list[Fault]:
    """Return every fault that can be planted in the files of some patterns; comments and docstrings have none."""
    found = []
    for file in sorted({file for pattern in patterns for file in root.glob(pattern)}):
        text = file.read_text(encoding="utf-8")
        lines = text.split("\n")
        code = _code_lines(text) if file.suffix == ".py" else set(range(len(lines)))
        for number, line in enumerate(lines):
            if number not in code or line.lstrip().startswith(("#", "--")):
                continue
            for pattern, replacement in REPLACEMENTS:
                after = re.sub(pattern, replacement, line, count=1)
                if after != line and (file.suffix != ".py" or _compiles("\n".join(_with(lines, number, after)))):
                    found.append(Fault(str(file.relative_to(root)), number, line, after))
    return found


def _code_lines(text: str) -> set[int]:
    """Return the numbers of the lines, from 0, on which an expression or statement other than a text begins."""
    return {
        node.lineno - 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.BinOp)
        or (isinstance(node, ast.Constant) and not isinstance(node.value, str))
    }


def _compiles(text: str) -> bool:
    try:
        compile(text, "fault", "exec")
    except SyntaxError:
        return False
    return True


def _with(lines: list[str], number: int, line: str) -> list[str]:
    return [*lines[:number], line, *lines[number + 1 :]]


@contextlib.contextmanager
def planted(root: Path, faults: Sequence[Fault]) -> Iterator[None]:
    """Plant faults, and put the files back at the end."""
    originals = {root / fault.file: (root / fault.file).read_bytes() for fault in faults}
    try:
        for fault in faults:
            file = root / fault.file
            file.write_text("\n".join(_with(file.read_text().split("\n"), fault.line, fault.after)))
        yield
    finally:
        for file, content in originals.items():
            file.write_bytes(content)


def test_files(root: Path, chosen: Sequence[str]) -> set[str]:
    """Return the files of unit and integration tests in some files and folders."""
    listed = {str(file.relative_to(root)) for file in (root / "tests").rglob("test_*.py")}
    return {name for name in listed for test in chosen if f"{name}/".startswith(f"{test}/") and name.startswith(PARTS)}


def failing(root: Path, files: set[str], seconds: float, near: Fault | None = None) -> set[str]:
    """Run test files and return those with a failure.

    :param near: end at the first failure, and begin with the tests that are likely to find this fault.
    :param seconds: how long they may take; what has not failed until then counts as passed.
    """
    options = ["-q", "-rfE", "-n", "2", "--dist", "loadscope", "-p", "no:cacheprovider", "--no-loadscope-reorder"]
    parts = Path(near.file).parts if near else ()
    ordered = sorted(files, key=lambda file: (Path(file).parent.name not in parts, file.startswith(PARTS[1]), file))
    command = [sys.executable, "-m", "pytest", *options, *(["-x"] if near else []), *ordered]
    with subprocess.Popen(  # noqa: S603 - a list made here, no shell
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # As Ctrl-C: fixtures end their processes, and the summary names the failures until then.
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate()
    found = set(re.findall(r"^(?:FAILED|ERROR) ([\w/]+\.py)", output, re.MULTILINE))
    # Without a failed test, another code than these means that pytest did not begin.
    began = process.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.INTERRUPTED)
    return found & files if found or began else files


def main() -> None:
    """Plant, run, and print the table."""
    parser = argparse.ArgumentParser(description="faults that inv test --changed finds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument(
        "--seconds", type=float, default=300, help="of one selection; the tests left out may take three times as long"
    )
    chosen = parser.parse_args()
    # A shell starts background processes with the signal ignored, and they would hand that on to pytest.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    root = paths.repository()
    if changed.changed_files(root, "HEAD"):
        raise OperatorError("the checkout has changes: commit them first")
    dice = random.Random(chosen.seed)  # noqa: S311 - faults, no secrets
    python = round(chosen.count * SHARE_OF_PYTHON)
    faults = dice.sample(faults_of(root, PYTHON), python) + dice.sample(faults_of(root, OTHERS), chosen.count - python)
    print(f"seed {chosen.seed}, {len(faults)} faults")  # noqa: T201 - the table is the result
    every = test_files(root, ["tests"])
    selected: dict[Fault, set[str]] = {}
    caught: dict[Fault, str] = {}
    for fault in faults:
        with planted(root, [fault]):
            selected[fault] = test_files(root, changed.tests_for(root, "HEAD"))
            failed = failing(root, selected[fault], chosen.seconds, fault)
        if failed:
            caught[fault] = min(failed)
        print(f"{fault.file}:{fault.line + 1} {caught.get(fault, '-')}", flush=True)  # noqa: T201
    left = [fault for fault in faults if fault not in caught]
    more: dict[Fault, set[str]] = {fault: set() for fault in left}
    rest = {file for fault in left for file in every - selected[fault]}
    with planted(root, left):
        # A run without files would be one of everything.
        suspects = failing(root, rest, 3 * chosen.seconds) if rest else set()
    for fault in left:
        if suspects - selected[fault]:
            with planted(root, [fault]):
                more[fault] = failing(root, suspects - selected[fault], chosen.seconds)
    print("\n| fault | line | files selected | --changed | whole suite |\n|---|---|---|---|---|")  # noqa: T201
    for fault in faults:
        by_whole = caught.get(fault) or min(more[fault], default="-")
        print(  # noqa: T201
            f"| {fault.file}:{fault.line + 1} | `{fault.after.strip()[:70]}` | {len(selected[fault])} of {len(every)} "
            f"| {caught.get(fault, '-')} | {by_whole} |"
        )
    print(f"--changed {len(caught)}, whole suite {len(caught) + sum(map(bool, more.values()))} of {len(faults)}")  # noqa: T201


if __name__ == "__main__":
    main()
