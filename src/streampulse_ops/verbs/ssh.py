"""``inv ssh``: a shell on a host."""

import os
import sys

from streampulse_ops.command import program_environment
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.ssh import login

#: With the login shell named, ssh neither asks for a terminal nor prints the greeting into a pipe.
PIPED_SHELL = 'exec "$SHELL" -l'


def shell(session: Session, name: str) -> None:
    """Replace this process by a shell on a host. Commands from a pipe get a shell without a terminal and a greeting.

    :param name: the host; empty for the first one.
    :raises OperatorError: there is no such host, or it is not running.
    """
    host = session.environment.host(name) if name else session.environment.hosts[0]
    session.require_running(host)
    way = login(session.environment, host)
    command = way.command() if sys.stdin.isatty() else [*way.command("-T"), PIPED_SHELL]
    os.execvpe(command[0], command, program_environment())  # noqa: S606 - a list made here
