"""Programs that a provider needs on the control machine; apt installs them if allowed."""

import os
from collections.abc import Mapping

from streampulse.core.errors import OperatorError
from streampulse_ops.command import CommandError, run, which
from streampulse_ops.machines import Report


def ensure(programs: Mapping[str, str], why: str, report: Report) -> None:
    """Install missing programs if possible.

    :param programs: program to Debian package.
    :raises OperatorError: some are missing and cannot be installed from here; the text has the command.
    """
    missing = {program: package for program, package in programs.items() if which(program) is None}
    if not missing:
        return
    packages = " ".join(sorted(set(missing.values())))
    command = f"apt-get install -y --no-install-recommends {packages}"
    if which("apt-get") is None:
        raise OperatorError(f"{', '.join(missing)} not found, which {why} needs: install with your system's packages")
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if prefix and which("sudo") is None:
        raise OperatorError(f"{', '.join(missing)} not found, which {why} needs; as root: {command}")
    report(f"installing {packages} with apt, for {why}")
    try:
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        run([*prefix, "apt-get", "update", "-qq"], environment=environment)
        run([*prefix, *command.split()], environment=environment)
    except CommandError as error:
        raise OperatorError(f"{', '.join(missing)} cannot be installed ({error}); as root: {command}") from None
