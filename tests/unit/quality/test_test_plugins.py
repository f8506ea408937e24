"""The suite's own plugins: which tests share a worker, and which became slow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import timings

SUPPORT = Path(__file__).parents[2] / "support"
WHERE = "import os\ndef test_{name}(): print('{name} on', os.environ['PYTEST_XDIST_WORKER'])\n"


def test_files_and_machines_keep_to_one_worker(tmp_path: Path) -> None:
    for file, names in {
        "tests/unit/test_a": "abcd",
        "tests/unit/test_i": "ijkl",
        "tests/e2e/test_m": "mn",
        "tests/e2e/test_o": "op",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{file}.py").write_text("".join(WHERE.format(name=name) for name in names))
    options = ["-p", "distribution", "-n", "3", "--dist", "loadgroup", "-rP", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    workers = dict(re.findall(r"^(\w) on (gw\d)$", done.stdout, re.MULTILINE))
    assert len(workers) == 12
    for together in ("abcd", "ijkl", "mnop"):
        assert len({workers[name] for name in together}) == 1, workers
    assert len(set(workers.values())) == 3, workers


def test_what_takes_twice_as_long_is_named_with_its_file_and_part() -> None:
    test, other = "tests/unit/test_a.py::test_it[a/b]", "tests/unit/test_b.py::test_other"
    before = {test: 6.0, other: 1.0, "tests/unit/test_b.py::test_removed": 90.0}
    now = {test: 14.0, other: 2.0, "tests/unit/test_b.py::test_new": 90.0}
    said = [f"{name} took 14 s, 6 s in the run before" for name in ("tests/unit/test_a.py", test)]
    assert timings.slower(before, now) == ["tests/unit took 16 s, 7 s in the run before", *said]
    assert timings.slower({test: 6.0}, {test: 11.0}) == []
