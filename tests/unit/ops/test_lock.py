"""The lock of an environment, held by real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streampulse.errors import OperatorError
from streampulse.ops import lock

HOLDER = """
import sys, time
from pathlib import Path
from streampulse.ops import lock
with lock.held(Path(sys.argv[1]), "inv reset"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_it_and_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "demo" / "lock"
    file.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = rf"demo is locked: .* `inv reset` \(pid {holder.pid}\) since 2"
        with pytest.raises(OperatorError, match=said), lock.held(file, "inv up"):
            pytest.fail("two at once")
        os.kill(holder.pid, signal.SIGKILL)
    with lock.held(file, "inv up"):
        assert '"inv up"' in file.read_text()
    assert file.read_text() == ""


def test_discarding_removes_an_empty_folder_only(tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    for folder in (full, empty):
        folder.mkdir()
        (folder / "lock").touch()
    (full / "key").touch()
    lock.discard(full / "lock")
    lock.discard(empty / "lock")
    assert [path.name for path in full.iterdir()] == ["key"]
    assert not empty.exists()
