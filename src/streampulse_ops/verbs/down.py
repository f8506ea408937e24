"""``inv down``: services stop in reverse order, machines that the project made are halted or removed."""

from collections.abc import Sequence

from streampulse.core.errors import OperatorError
from streampulse_ops import ansible
from streampulse_ops.environments import lock
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.verbs.deploy import variables


def down(session: Session, full: bool, wipe: bool) -> str:
    """Stop the services in reverse order, halt the machines that the project made, and return the closing words.

    :param full: stop, or wipe, monitoring too. Without it monitoring goes on on existing hosts.
    :param wipe: remove all state as well.
    """
    if full:
        session.environment.require_group("monitoring")
    session.screen.line(session.headline())
    if session.never_made:
        return "nothing is there, nothing to do"
    with changing(session, "inv down"):
        stopped = 0
        if not (wipe and session.ours):  # machines that are removed need no order
            stopped = _stop_before_halt(session, full) if session.ours else stop_services(session, full)
        if wipe and not session.ours:
            play_each(session, full, "wipe")
        with session.screen.step("machine") as step:
            count = session.machines("destroy" if wipe else "down")
            step.done(f"{count} {'removed' if wipe else 'halted'}" if count else "nothing to do")
        if wipe and session.ours:
            clear_away(session)
    return "all state is removed" if wipe else f"{stopped + count} changed · state is kept: ./inv up{session.flag}"


def stop_services(session: Session, full: bool) -> int:
    """Stop the services on the hosts that are up, and return the number of changes.

    :raises OperatorError: an existing host does not answer; the services of the others are stopped.
    """
    running = [host for host in session.environment.hosts if session.provider.running(host)]
    gone = ", ".join(host.name for host in session.environment.hosts if host not in running)
    if gone and running:
        session.screen.line(f"  not running, left alone: {gone}")
    changed = play_each(session, full, "stop", limit=[host.name for host in running]) if running else 0
    if gone and not session.ours:
        raise OperatorError(f"{gone} did not answer, and services there may run on: inv env check {session.name}")
    return changed


#: The playbooks of an action: monitoring's with ``--full`` first, then the base stack's; each with its shown name.
PLAYBOOKS = {
    "stop": (("monitoring_stop", "monitoring"), ("stop", "services")),
    "wipe": (("monitoring_wipe", "metrics"), ("wipe", "state")),
}


def play_each(
    session: Session, full: bool, action: str, *, keep: Sequence[str] | None = None, limit: Sequence[str] = ()
) -> int:
    """Stop the services, or remove their state, and return the number of changes.

    :param action: of PLAYBOOKS.
    :param keep: the state that ``inv reset`` leaves alone; None for other tasks.
    :param limit: names of hosts; empty for all.
    """
    hosts = [host for host in session.environment.hosts if host.name in limit]
    return sum(
        ansible.play(
            session.environment,
            playbook,
            variables(session, full, keep),
            session.screen,
            session.verbose,
            hosts=hosts,
            name=name,
        )
        for playbook, name in PLAYBOOKS[action][0 if full else 1 :]
    )


def _stop_before_halt(session: Session, full: bool) -> int:
    """Stop the services of machines that are halted next, and return the number of changes.

    A machine that cannot be reached over SSH is halted all the same: its own shutdown stops its services.
    """
    try:
        return stop_services(session, full)
    except OperatorError as error:
        session.screen.line(
            f"  services could not be stopped one by one ({error}); the machines are halted as they are"
        )
        return 0


def clear_away(session: Session) -> None:
    """Remove the control machine's files of an environment whose machines are gone."""
    state = session.environment.state
    for file in sorted(state.glob("logs/*")):
        file.unlink()
    if (state / "logs").is_dir():
        (state / "logs").rmdir()
    for name in ("artifacts.json", "secrets.json", "inventory.json", "known_hosts"):
        (state / name).unlink(missing_ok=True)
    lock.discard(state / "lock")
