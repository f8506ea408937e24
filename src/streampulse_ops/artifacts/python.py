"""Run pip, with one-line errors."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.command import ended, last_words, run

# A wheel contains the times of its files. A fixed time makes builds of the same source identical. Zip times begin in
# 1980.
REPRODUCIBLE = {"SOURCE_DATE_EPOCH": "315619200", "PYTHONHASHSEED": "0"}

# pip's user setting of the caller would keep packages out of a virtual environment.
IN_ENVIRONMENT = {"PIP_USER": "0"}


def pip(python: Path, arguments: Sequence[str], what: str, scratch: Path) -> None:
    """Run pip quietly.

    :param what: name of the fetched item, for the error's text.
    :param scratch: folder for temporary files; /tmp may be too small for a build.
    :raises OperatorError: it failed; a wrong hash and a failing network have different texts.
    """
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = ended(command, environment={**REPRODUCIBLE, **IN_ENVIRONMENT, "TMPDIR": str(scratch)})
    if done.returncode == 0:
        return
    reason = last_words(done.stderr or done.stdout, done.returncode)
    # A build's own words are above pip's.
    if "No space left" in done.stderr + done.stdout:
        raise OperatorError(
            f"{what} could not be fetched: no space left on device: make room, df -h {paths.cache_home()}, or set "
            "XDG_CACHE_HOME to another folder, then run inv artifacts again"
        )
    if "hash" in reason.lower() or "Got " in reason:
        raise OperatorError(
            f"{what}: what was fetched has not the hash that is pinned in requirements/ ({reason}). Do not use it; "
            "fetch again, or ask who changed it"
        )
    raise OperatorError(
        f"{what} could not be fetched: {reason}; check that pip reaches its package index (pip config list), then "
        "run inv artifacts again"
    )


def own_python() -> Path:
    """Return this environment's Python, which must have pip.

    :raises OperatorError: pip is missing.
    """
    if importlib.util.find_spec("pip") is None:
        raise OperatorError(f"{sys.executable} has no pip: run the task through ./inv, or python -m ensurepip")
    return Path(sys.executable)


def virtual_environment(folder: Path, lock: Path) -> Path:
    """Make a virtual environment with the packages of a lock file, and return its Python."""
    run([sys.executable, "-m", "venv", folder], environment={"TMPDIR": str(folder.parent)})
    python = folder / "bin/python"
    pip(python, ["install", "--require-hashes", "--only-binary", ":all:", "-r", str(lock)], lock.name, folder.parent)
    return python
