"""The script ./inv, before there is a virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from streampulse.ops import paths

# Has all that is asked of a Python, and makes no virtual environment.
PYTHON = """#!/bin/sh
[ "$1" = -c ]
"""


def test_through_a_link_the_virtual_environment_is_the_checkouts(tmp_path: Path) -> None:
    checkout, elsewhere, programs = (tmp_path / name for name in ("a checkout", "elsewhere", "programs"))
    for folder in (checkout, elsewhere / ".venv", programs):
        folder.mkdir(parents=True)
    shutil.copy(paths.repository() / "inv", checkout / "inv")
    (programs / "python3").write_text(PYTHON)
    (programs / "python3").chmod(0o755)
    (elsewhere / "inv").symlink_to(checkout / "inv")
    done = subprocess.run(
        [elsewhere / "inv", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        check=False,
    )
    assert done.returncode == 1
    assert "the virtual environment could not be made" in done.stderr
    assert (checkout / ".venv.lock").exists()
    # One of somebody else's, beside the link, is not removed.
    assert sorted(file.name for file in elsewhere.iterdir()) == [".venv", "inv"]
