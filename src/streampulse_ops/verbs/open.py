"""``inv open``: the address of a page, or a tunnel to it."""

import subprocess

from streampulse.core.errors import OperatorError
from streampulse_ops.command import program_environment
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import links


def page(session: Session, name: str, tunnel: bool) -> None:
    """Print a page's address, or keep a tunnel to it open until Ctrl-C.

    :raises OperatorError: there is no such page or no host for it, or its machine is down, so that its address is not
        known.
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
