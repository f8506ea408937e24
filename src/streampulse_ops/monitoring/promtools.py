"""Prometheus' own programs on the control machine, for looking at rules and configurations: nothing is installed.

Those on PATH are used. Where they are missing, apt fetches the package that has them, and only the program is taken
out of it, into the cache; no service comes with it, and no right is needed but the right to use apt.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.command import CommandError, run, which
from streampulse_ops.machines import Report

#: Each program and the packages that may have it: Debian 13 has promtool in one of its own.
PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "promtool": ("promtool", "prometheus"),
    "amtool": ("prometheus-alertmanager",),
    "prometheus": ("prometheus",),
    "prometheus-alertmanager": ("prometheus-alertmanager",),
}
#: What a program opens as it starts, at this very place; kept beside the program.
TEMPLATES: Final = Path("/usr/share/prometheus/alertmanager")
#: A package is 10 to 20 MB.
_SECONDS: Final = 300


class Unavailable(OperatorError):  # noqa: N818 - says what it is about
    """A program is not here and cannot be fetched; the text says why."""


def templates() -> Path:
    """Return the folder of the templates that Alertmanager opens: the system's own, else what was fetched with it."""
    return TEMPLATES if TEMPLATES.is_dir() else paths.cache_home() / "promtools" / "templates"


def find(program: str, report: Report) -> Path:
    """Return the path of a program, fetched first where it is missing.

    :param program: one of :data:`PACKAGES`.
    :param report: gets one line for what is fetched.
    :raises Unavailable: it is not here and cannot be fetched.
    """
    installed = which(program)
    if installed is not None:
        return Path(installed)
    kept = paths.cache_home() / "promtools" / program
    if not os.access(kept, os.X_OK):
        _fetch(program, kept, report)
    return kept


def _fetch(program: str, to: Path, report: Report) -> None:
    if which("apt-get") is None or which("dpkg-deb") is None:
        raise Unavailable(f"{program} is not here, and there is no apt to fetch it with: put it on PATH")
    packages = PACKAGES[program]
    report(f"fetching {program} out of the package {' or '.join(packages)} with apt, into {to.parent}")
    to.parent.mkdir(parents=True, exist_ok=True)
    # In the cache's own folder, so that the last step is a rename.
    with tempfile.TemporaryDirectory(dir=to.parent) as name:
        folder = Path(name)
        try:
            found = _download(program, packages, folder)
        except CommandError:
            # A fresh machine has no lists of packages yet.
            _update()
            try:
                found = _download(program, packages, folder)
            except CommandError as error:
                raise Unavailable(f"{program} is not here, and apt cannot fetch it ({error})") from None
        if program == "prometheus-alertmanager":
            kept = to.parent / "templates"
            kept.mkdir(exist_ok=True)
            for file in found.parents[2].glob(f"{TEMPLATES.relative_to('/')}/*.tmpl"):
                file.replace(kept / file.name)
        found.chmod(0o755)
        found.replace(to)


def _download(program: str, packages: tuple[str, ...], folder: Path) -> Path:
    """Return the program's path, unpacked from the first of the packages that has it.

    :raises CommandError: none of them can be had, or none has it.
    """
    wrong: CommandError | None = None
    for package in packages:
        here = folder / package
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        try:
            run(["apt-get", "download", package], cwd=here, timeout=_SECONDS)
            (archive,) = here.glob("*.deb")
            run(["dpkg-deb", "-x", archive, here / "files"], timeout=_SECONDS)
        except CommandError as error:
            wrong = error
            continue
        found = here / "files/usr/bin" / program
        if found.is_file():
            return found
    raise wrong or CommandError(f"no {program} in {', '.join(packages)}")


def _update() -> None:
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if prefix and which("sudo") is None:
        return
    try:
        run([*prefix, "apt-get", "update", "-qq"], timeout=_SECONDS)
    except CommandError as error:
        raise Unavailable(f"apt's lists cannot be renewed ({error})") from None
