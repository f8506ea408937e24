"""Prometheus' own programs on the control machine, which look at rules and configurations.

A program on PATH is used. Otherwise apt downloads its package, which is unpacked into the cache and not installed: no
service comes with it, and no right is needed but the right to use apt.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.command import CommandError, run, which
from streampulse_ops.machines import Report

#: Each program's packages, the first that apt knows: Debian 13 has promtool in a package of its own.
PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "promtool": ("promtool", "prometheus"),
    "amtool": ("prometheus-alertmanager",),
    "prometheus": ("prometheus",),
    "prometheus-alertmanager": ("prometheus-alertmanager",),
}
#: A package is 10 to 20 MB.
_SECONDS: Final = 300


class Unavailable(OperatorError):  # noqa: N818 - says what it is about
    """A program is not installed and apt cannot download it; the text says why."""


def find(program: str, report: Report) -> Path:
    """Return the path of a program, downloaded first where it is missing.

    :param program: one of :data:`PACKAGES`.
    :param report: gets one line for a download.
    :raises Unavailable: it is not installed and apt cannot download it.
    """
    installed = which(program)
    if installed is not None:
        return Path(installed)
    try:
        return _downloaded(program, report)
    except CommandError:
        # A fresh machine has no lists of packages yet.
        try:
            run([*([] if os.geteuid() == 0 else ["sudo", "-n"]), "apt-get", "update", "-qq"], timeout=_SECONDS)
            return _downloaded(program, report)
        except CommandError as error:
            raise Unavailable(
                f"{program} is not installed, and apt cannot download it ({error}): put it on PATH"
            ) from None


def _downloaded(program: str, report: Report) -> Path:
    """Return the program in the first of its packages that apt knows.

    :raises CommandError: apt or dpkg-deb is missing, or apt knows none of them.
    """
    failed = CommandError(f"no package of {', '.join(PACKAGES[program])} has {program}")
    for package in PACKAGES[program]:
        found = _folder(package) / "usr/bin" / program
        try:
            if not found.is_file():
                report(f"downloading {program} in the package {package} with apt, into {_folder(package)}")
                _download(package)
        except CommandError as error:
            failed = error
        if found.is_file():
            return found
    raise failed


def _folder(package: str) -> Path:
    return paths.cache_home() / "packages" / package


def _download(package: str) -> None:
    """Unpack a package into the cache."""
    folder = _folder(package)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        run(["apt-get", "download", package], cwd=Path(name), timeout=_SECONDS)
        (archive,) = Path(name).glob("*.deb")
        run(["dpkg-deb", "-x", archive, Path(name) / "files"], timeout=_SECONDS)
        # Another process may have been quicker.
        if not folder.exists():
            (Path(name) / "files").rename(folder)
