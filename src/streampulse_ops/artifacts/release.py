"""A release: the project's wheel and the pins of its dependencies, named by a digest of the content."""

import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops.artifacts.store import ArtifactSet, digest_of
from streampulse_ops.command import CommandError, run
from streampulse_ops.machines import Report

# Everything of this repository that runs on hosts. Other files make no new release, so they restart no service.
SOURCES = ("src/streampulse/**/*", "sql/**/*")
LOCK = "requirements/host.lock"
# The wheel's build settings. Hosts install the wheel without the dependencies in pyproject.toml, so the rest of that
# file does not matter.
BUILD = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "streampulse"
version = "{version}"
requires-python = ">=3.11"

[project.scripts]
streampulse = "streampulse.host.cli:main"

[tool.hatch.build.targets.wheel]
packages = ["src/streampulse"]

[tool.hatch.build.targets.wheel.force-include]
sql = "streampulse/sql"
"""


def inputs(root: Path) -> list[Path]:
    """Return the files that determine the release, relative to the checkout."""
    found = {file for pattern in SOURCES for file in root.glob(pattern) if file.is_file()}
    relative = {file.relative_to(root) for file in found if "__pycache__" not in file.parts}
    return sorted(relative | {Path(LOCK)})


def release_set(root: Path) -> ArtifactSet:
    """Return the set with the project's wheel."""
    files = inputs(root)
    number = version(root)
    build = BUILD.format(version=number)
    digest = digest_of(build, *(part for file in files for part in (str(file), (root / file).read_bytes())))

    def make(folder: Path, _report: Report) -> None:
        # Build from a copy: the built files are the hashed ones, and the checkout stays clean.
        with tempfile.TemporaryDirectory() as scratch:
            for file in files:
                (Path(scratch) / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / file, Path(scratch) / file)
            (Path(scratch) / "pyproject.toml").write_text(build, encoding="utf-8")
            try:
                run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=Path(scratch))
            except CommandError as error:
                raise OperatorError(f"our own wheel cannot be built: {error}; see src/streampulse") from None
        shutil.copyfile(root / LOCK, folder / "host.lock")

    wheel = f"streampulse-{number}-py3-none-any.whl"
    return ArtifactSet("release", digest, make, "building our own wheel", {"id": digest[:12], "wheel": wheel})


def version(root: Path) -> str:
    """Return the package's version."""
    with (root / "pyproject.toml").open("rb") as handle:
        return str(tomllib.load(handle)["project"]["version"])
