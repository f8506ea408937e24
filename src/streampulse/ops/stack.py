"""The verbs that change an environment: up, down, reset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from streampulse.errors import OperatorError
from streampulse.ops import ansible, artifacts, health, links, lock, secrets
from streampulse.ops.session import Session, changing

DEFAULT_PYTHONS = ("cp311", "cp312", "cp313")


def pythons_of(session: Session) -> Sequence[str]:
    """Return the tags of the Pythons that the hosts have, as far as this side can know.

    :raises OperatorError: the inventory names one that is not supported.
    """
    chosen = session.environment.variables.get("machine_os")
    if session.environment.provider != "nspawn":
        given = session.environment.variables.get("host_pythons", DEFAULT_PYTHONS)
        known = artifacts.PYTHONS.values()
        if not given or not isinstance(given, list | tuple) or any(python not in known for python in given):
            raise OperatorError(
                f"host_pythons is {given} in {session.environment.inventory}: list some of {', '.join(known)}"
            )
        return given
    return [artifacts.PYTHONS[str(chosen or "debian13")]]


def prepare_artifacts(session: Session) -> Path:
    """Fetch or build what the hosts get, and return the file of variables that tells the roles."""
    file = session.environment.state / "artifacts.json"
    with session.screen.step("artifacts") as step:
        prepared = artifacts.prepare(pythons_of(session), artifacts.architecture_of(session.environment), step.note)
        step.done(prepared.summary())
    artifacts.write_facts(prepared, file)
    return file


def up(session: Session, full: bool) -> str:
    """Bring everything up that the inventory asks for, check it, and return the closing words."""
    session.screen.line(session.headline())
    if not session.ours:
        secrets.file_for(session.environment)  # nothing is fetched for hosts that could not be set up then
    with changing(session, "inv up"):
        file = prepare_artifacts(session)
        changed = start_machines(session)
        changed += configure(session, file, full)
        health.smoke(session)
    return f"{changed} changed · {_page(session)} · look: ./inv status{_flag(session)}"


def start_machines(session: Session) -> int:
    """Make and start the machines, and return how many were touched."""
    with session.screen.step("machine") as step:
        touched = session.machines_up()
        addresses = ", ".join(f"{h.name} at {session.provider.address(h)}" for h in session.environment.hosts[:3])
        more = len(session.environment.hosts) - 3
        step.done(addresses + (f" and {more} more" if more > 0 else ""))
    return touched


def configure(session: Session, artifact_facts: Path, full: bool) -> int:
    """Run the roles over all hosts, and return how many changes they made."""
    extra: ansible.Extra = [artifact_facts, secrets.file_for(session.environment), full_flag(full)]
    return ansible.play(session.environment, "site", extra, session.screen, session.verbose)


def full_flag(full: bool) -> str:
    """Return the variable that takes the monitoring group in or leaves it out."""
    return f'{{"full": {"true" if full else "false"}}}'


def down(session: Session, full: bool, wipe: bool) -> str:
    """Stop the services in reverse order, halt the machines that are ours, and return the closing words.

    :param wipe: remove all state as well.
    """
    session.screen.line(session.headline())
    ours = session.ours
    # Machines of ours are known from the state that is kept of them here. Hosts that exist already may have been set up
    # from another control machine.
    if ours and not session.environment.state.is_dir():
        return "nothing is there, nothing to do"
    with changing(session, "inv down"):
        stopped = 0
        if not (wipe and ours):  # machines that are removed need no order
            stopped = stop_for_halt(session, full) if ours else stop_services(session, full)
        if wipe and not ours:
            wipe_state(session)
        with session.screen.step("machine") as step:
            count = session.machines_removed() if wipe else session.machines_down()
            step.done(f"{count} {'removed' if wipe else 'halted'}" if count else "nothing to do")
        if wipe and ours:
            clear_away(session)
    return "all state is removed" if wipe else f"{stopped + count} changed · state is kept: ./inv up{_flag(session)}"


def stop_for_halt(session: Session, full: bool) -> int:
    """Stop the services of machines that are halted next, and return how many changes that made.

    A machine that cannot be logged in to is halted nevertheless: its own shutdown stops its services.
    """
    try:
        return stop_services(session, full)
    except OperatorError as error:
        session.screen.line(
            f"  services could not be stopped one by one ({error}); the machines are halted as they are"
        )
        return 0


def clear_away(session: Session) -> None:
    """Remove what this side keeps of an environment whose machines are gone."""
    state = session.environment.state
    for file in sorted(state.glob("logs/*")):
        file.unlink()
    if (state / "logs").is_dir():
        (state / "logs").rmdir()
    for name in ("artifacts.json", "secrets.json", "inventory.json", "known_hosts"):
        (state / name).unlink(missing_ok=True)
    lock.discard(state / "lock")


def stop_services(session: Session, full: bool) -> int:
    """Stop the services on the hosts that are up, and return how many changes that made."""
    running = [host for host in session.environment.hosts if session.provider.running(host)]
    if not running:
        return 0
    if len(running) < len(session.environment.hosts):
        gone = ", ".join(host.name for host in session.environment.hosts if host not in running)
        session.screen.line(f"  not running, left alone: {gone}")
    extra: ansible.Extra = [secrets.file_for(session.environment), full_flag(full)]
    return ansible.play(
        session.environment, "stop", extra, session.screen, session.verbose, hosts=running, name="services"
    )


def wipe_state(session: Session) -> int:
    """Remove the services' state on the hosts, and return how many changes that made."""
    extra = [secrets.file_for(session.environment)]
    return ansible.play(session.environment, "wipe", extra, session.screen, session.verbose, name="state")


def reset(session: Session, full: bool) -> str:
    """Remove topics, checkpoints and tables together, start again, check, and return the closing words."""
    session.screen.line(session.headline())
    with changing(session, "inv reset"):
        file = prepare_artifacts(session)
        start_machines(session)
        stop_services(session, full)
        wipe_state(session)
        configure(session, file, full)
        health.smoke(session)
    return f"state is new · {_page(session)} · look: ./inv status{_flag(session)}"


def reset_plan(session: Session) -> list[str]:
    """Return what a reset would do, line by line."""
    hosts = ", ".join(host.name for host in session.environment.hosts)
    return [
        f"reset of {session.name} would, on {hosts}:",
        "  stop the generator, the API, the job, Spark and Kafka, in that order",
        "  remove all events (Kafka's topics), the job's checkpoints, and all rows of the tables",
        "  start everything again and run the smoke test",
    ]


def confirm(question: str, yes: bool, command: str) -> None:
    """Ask before something is lost.

    :param yes: the answer was given on the command line.
    :param command: what to type instead where nobody can be asked.
    :raises OperatorError: nobody can be asked, or the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise OperatorError(f"{question} Nobody is there to ask: {command}")
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise OperatorError(f"nothing was changed; without being asked: {command}")


def _page(session: Session) -> str:
    """Return where the page is, or the command that leads to one that only its own host can ask."""
    if links.only_there(session.environment):
        return f"the page: ./inv open api --tunnel{_flag(session)}"
    return links.api(session.environment)


def _flag(session: Session) -> str:
    return "" if session.name == "local" else f" --env {session.name}"
