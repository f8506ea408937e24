"""Machines that need root: the machines' command, run through sudo."""

import os
import re
import subprocess
import sys

from streampulse.core.errors import OperatorError
from streampulse_ops.command import program_environment, which
from streampulse_ops.environments.environment import Environment

# sudo passes these on to the command.
KEPT_VARIABLES = ("STREAMPULSE_INVENTORIES", "XDG_CACHE_HOME", "XDG_STATE_HOME")
# The command prints such a line for each machine that it changed.
TOUCHED = re.compile(r"\S+ (up at \S+|stopped|removed)$")


def needed(environment: Environment) -> bool:
    """Return whether this process lacks the rights to change the environment's machines."""
    return environment.provider == "nspawn" and os.geteuid() != 0


def run(verb: str, environment: Environment) -> int:
    """Run a verb of the machines' command as root, under the lock of this process; return how many machines changed.

    :param verb: ``up``, ``down``, ``destroy``, or ``prepare``, which makes the environment's state folder.
    :raises OperatorError: sudo is missing, or the command failed and has printed why.
    """
    if which("sudo") is None:
        raise OperatorError("machines of provider nspawn are made by root and there is no sudo here: run it as root")
    kept = [f"{name}={os.environ[name]}" for name in KEPT_VARIABLES if name in os.environ]
    own = [sys.executable, "-m", "streampulse_ops.machines", verb, "--env", environment.name]
    command = ["sudo", *kept, *own]
    # Standard error and input stay the terminal's: sudo may ask for a password there.
    with subprocess.Popen(  # noqa: S603 - a list made here, no shell
        command, env=program_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            # A process of root cannot be ended from here. Wait for it, because it works under the lock of this process.
            process.communicate()
            raise
    if process.returncode != 0:
        raise OperatorError(f"the machines could not be changed as root: see above; by hand: {' '.join(command)}")
    return sum(1 for line in output.splitlines() if TOUCHED.match(line))
