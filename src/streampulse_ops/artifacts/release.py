"""Our own wheel and the pins of what it needs: a release, named by what is in it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops.artifacts.store import ArtifactSet, digest_of
from streampulse_ops.command import CommandError, run
from streampulse_ops.machines import Report

# What ends up in the wheel. The tasks' own code stays on the control machine: changing it makes no new release.
SOURCES = ("src/streampulse/**/*", "sql/**/*")
OTHERS = ("pyproject.toml", "README.md", "LICENSE", "requirements/host.lock")


def inputs(root: Path) -> list[Path]:
    """Return every file that decides what the release is."""
    found = {file for pattern in SOURCES for file in root.glob(pattern) if file.is_file()}
    relative = {file.relative_to(root) for file in found if "__pycache__" not in file.parts}
    return sorted(relative | {Path(name) for name in OTHERS if (root / name).is_file()})


def release_set(root: Path) -> ArtifactSet:
    """Return the set with our wheel."""
    files = inputs(root)
    digest = digest_of(*(part for file in files for part in (str(file), (root / file).read_bytes())))
    version = _version(root)

    def make(folder: Path, _report: Report) -> None:
        # From a copy: what is built is what was hashed, and nothing is written beside people's work.
        with tempfile.TemporaryDirectory() as scratch:
            for file in files:
                (Path(scratch) / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / file, Path(scratch) / file)
            try:
                run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=Path(scratch))
            except CommandError as error:
                raise OperatorError(f"our own wheel cannot be built: {error}; see pyproject.toml") from None
        shutil.copyfile(root / "requirements/host.lock", folder / "host.lock")

    wheel = f"streampulse-{version}-py3-none-any.whl"
    return ArtifactSet("release", digest, make, "building our own wheel", {"id": digest[:12], "wheel": wheel})


def _version(root: Path) -> str:
    with (root / "pyproject.toml").open("rb") as handle:
        return str(tomllib.load(handle)["project"]["version"])
