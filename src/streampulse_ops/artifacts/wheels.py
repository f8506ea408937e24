"""The hosts' Python packages, fetched here for the hosts' Python: hosts reach no package index."""

import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from streampulse.core.errors import OperatorError
from streampulse_ops.artifacts.python import own_python, pip, virtual_environment
from streampulse_ops.artifacts.store import ArtifactSet, digest_of
from streampulse_ops.machines import Report

# Up to the C library of the oldest supported system (Debian 12: 2.36).
GLIBC = ("2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")

# Line end in a lock file that continues on the next line.
CONTINUED = " \\"
# Published as source only. They are pure Python, so a wheel built here fits every host.
SOURCE_ONLY = ("sdnotify",)


def wheel_set(root: Path, python: str, machine: str) -> ArtifactSet:
    """Return the set of wheels for one Python.

    :param python: its tag, such as ``cp313``.
    :param machine: the hosts' architecture as the kernel names it, such as ``x86_64``.
    """
    build = root / "requirements/build.lock"
    locks = [root / "requirements/host.lock", root / "requirements/bootstrap.lock"]

    def make(folder: Path, _report: Report) -> None:
        text = "\n".join(lock.read_text(encoding="utf-8") for lock in locks)
        entries = for_python(text, python, machine)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            ready = _write(Path(scratch) / "wheels.txt", [entries[name] for name in entries if name not in SOURCE_ONLY])
            source = _write(Path(scratch) / "source.txt", [entries[name] for name in entries if name in SOURCE_ONLY])
            arguments = [
                "download", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--implementation", "cp",
            ]  # fmt: skip
            arguments += ["--python-version", dotted(python), "--dest", str(folder), "-r", str(ready)]
            for tag in (*(f"manylinux_{version}" for version in GLIBC), "manylinux2014", "manylinux2010", "manylinux1"):
                arguments += ["--platform", f"{tag}_{machine}"]
            pip(own_python(), arguments, f"the hosts' packages for Python {dotted(python)}", Path(scratch))
            builder = virtual_environment(Path(scratch) / "venv", build)
            arguments = ["wheel", "--no-deps", "--no-build-isolation", "--require-hashes", "--wheel-dir", str(folder)]
            pip(builder, [*arguments, "-r", str(source)], ", ".join(SOURCE_ONLY), Path(scratch))
        for name in SOURCE_ONLY:
            if not any(folder.glob(f"{name}-*-none-any.whl")):
                raise OperatorError(f"{name} was built for this machine only: choose a version of it that has wheels")

    return ArtifactSet(
        f"wheels-{python}",
        digest_of(machine, python, *(lock.read_bytes() for lock in (*locks, build))),
        make,
        f"fetching the hosts' packages for Python {dotted(python)}",
        {"machine": machine},
    )


def dotted(python: str) -> str:
    """Return ``3.13`` for ``cp313``."""
    return f"{python[2]}.{python[3:]}"


def for_python(lock: str, python: str, machine: str) -> dict[str, str]:
    """Return by name the entries of a lock file that apply to a Python other than the running one.

    pip evaluates the conditions for the Python that it runs on, also when it fetches for another.
    """
    environment = {
        "python_version": dotted(python),
        "python_full_version": f"{dotted(python)}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
        "os_name": "posix",
        "extra": "",
    }
    kept: dict[str, str] = {}
    name: str | None = None
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip(CONTINUED))
            applies = requirement.marker is None or requirement.marker.evaluate(environment)
            name = requirement.name if applies else None
            if name:
                kept[name] = f"{requirement.name}{requirement.specifier}"
        elif name and line.lstrip().startswith("--hash="):
            kept[name] += f" {line.rstrip(CONTINUED).strip()}"
    return kept


def _write(file: Path, entries: list[str]) -> Path:
    file.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return file
