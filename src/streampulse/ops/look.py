"""Looking at a host from nearby: logs, a shell, a page."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from streampulse.errors import OperatorError
from streampulse.ops import links, remote, services
from streampulse.ops.command import program_environment
from streampulse.ops.ending import Terminated
from streampulse.ops.environment import Host
from streampulse.ops.session import Session

# The login shell, named: ssh then neither asks for a terminal nor prints the greeting of the day into what is piped on.
PIPED_SHELL = 'exec "$SHELL" -l'


def logs(session: Session, name: str, follow: bool, lines: int) -> None:
    """Print the journal of a service, or of all.

    :param name: the service; empty for all.
    :param lines: how many of the newest lines.
    :raises OperatorError: no such service, no such number of lines, or a host cannot be reached.
    """
    if not 0 <= lines < 2**31:  # what journalctl takes
        raise OperatorError(f"{lines} lines cannot be shown: inv logs {name or 'job'} --lines 100")
    wanted = [services.named(name)] if name else list(services.all_services())
    asked = []
    for host in session.environment.hosts:
        units = [service.unit for service in wanted if services.runs(host, service)]
        if units:
            asked.append((host, units))
    if not asked:
        raise OperatorError(f"no host of {session.name} runs {name}: add one to {session.environment.inventory}")
    processes = [_journal(session, host, units, follow, lines) for host, units in asked]
    try:
        codes = [process.wait() for process in processes]
    except KeyboardInterrupt as error:
        # The end of `--follow`: of Ctrl-C ssh has heard from the terminal, of a signal to us it has not.
        if isinstance(error, Terminated):
            for process in processes:
                process.terminate()
        codes = [process.wait() and 0 for process in processes]
    if any(codes):
        raise OperatorError(f"the journal could not be read: see above; is it up? inv status --env {session.name}")


def _journal(session: Session, host: Host, units: list[str], follow: bool, lines: int) -> subprocess.Popen[bytes]:
    session.require_running(host)
    command = ["journalctl", "--no-pager", "--output=short-iso", f"--lines={lines}"]
    command += [f"--unit={unit}" for unit in units]
    if follow:
        command.append("--follow")
    login = remote.login(session.environment, host)
    words = command if login.user == "root" else ["sudo", "-n", *command]
    # With --follow a terminal at the other end, so that journalctl ends when we do.
    options = ["-tt"] if follow else []
    return subprocess.Popen(  # noqa: S603 - a list made here; ssh hands the quoted words to the other side's shell
        [*login.command("-q", *options), shlex.join(words)], env=program_environment(), stdin=subprocess.DEVNULL
    )


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
