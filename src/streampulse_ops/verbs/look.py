"""Looking at a host from nearby: a shell, a page."""

from __future__ import annotations

import os
import subprocess
import sys

from streampulse.core.errors import OperatorError
from streampulse_ops.command import program_environment
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import links, remote

# The login shell, named: ssh then neither asks for a terminal nor prints the greeting of the day into what is piped on.
PIPED_SHELL = 'exec "$SHELL" -l'


def shell(session: Session, name: str) -> None:
    """Become a shell on a host; commands that are piped in get one without a terminal and without its greeting.

    :raises OperatorError: no such host, or it is not running.
    """
    host = session.environment.host(name) if name else session.environment.hosts[0]
    session.require_running(host)
    login = remote.login(session.environment, host)
    command = login.command() if sys.stdin.isatty() else [*login.command("-T"), PIPED_SHELL]
    os.execvpe(command[0], command, program_environment())  # noqa: S606 - a list made here


def page(session: Session, name: str, tunnel: bool) -> None:
    """Print a page's address; with a tunnel to it where it is inside the private network.

    :param tunnel: keep a tunnel open until Ctrl-C.
    :raises OperatorError: no such page, no host for it, or its machine is down, whose address may not be known.
    """
    direct = links.address(session.environment, name)
    if session.ours:
        session.require_running(session.environment.in_group(links.page(name).group)[0])
    if not tunnel:
        session.screen.line(direct)
        return
    command, near = links.tunnel(session.environment, name)
    session.screen.line(f"{near} (tunnel to {direct}; Ctrl-C ends it)")
    try:
        code = subprocess.run(command, env=program_environment(), check=False).returncode  # noqa: S603 - made here
    except KeyboardInterrupt:
        return
    if code != 0:
        raise OperatorError(f"the tunnel broke down; is the host up? inv status --env {session.name}")
