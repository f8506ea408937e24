"""The suite's own plugins: which tests share a worker, and which became slow."""

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
        "tests/molecule/test_m": "mn",
        "tests/e2e/test_monitoring": "op",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{file}.py").write_text("".join(WHERE.format(name=name) for name in names))
    options = [
        "-p", "xdist.plugin", "-p", "distribution", "-n", "3", "--dist", "loadscope", "-rP", "--rootdir",
        str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
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


def test_a_doubled_duration_is_reported() -> None:
    slow, file = "tests/unit/test_a.py::test_it[a/b]", "tests/unit/test_b.py"
    before = {slow: 6.0, **dict.fromkeys([f"{file}::test_{n}" for n in range(9)], 1.0), f"{file}::removed": 90.0}
    now = {slow: 14.0, **dict.fromkeys([f"{file}::test_{n}" for n in range(9)], 2.0), f"{file}::new": 90.0}
    said = [f"{slow} took 14 s, 6 s in the run before", f"{file} took 18 s, 9 s in the run before"]
    assert timings.slower(before, now) == said
    assert timings.slower({slow: 6.0}, {slow: 10.9}) == []
