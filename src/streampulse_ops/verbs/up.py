"""``inv up``: machines, then the deploy of this checkout."""

from streampulse_ops.environments import secrets
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.hosts import links
from streampulse_ops.releases import history
from streampulse_ops.verbs import deploy


def up(session: Session, full: bool) -> str:
    """Bring up everything that the inventory asks for, check it, and return the closing words.

    :raises IncompleteError: everything is up but optional components that could not be installed.
    """
    changed, missing = bring_up(session, full)
    return closing(session, f"{changed} changed", missing)


def bring_up(session: Session, full: bool) -> tuple[int, dict[str, str]]:
    """Bring everything up and check it; return the number of changes, and the missing components with the reasons."""
    if full:
        session.environment.require_group("monitoring")
    session.screen.line(session.headline())
    if not session.ours:
        secrets.file_for(session.environment)  # refused here, before anything is fetched
    with changing(session, "inv up"):
        release = deploy.prepare(session, deploy.made(session))
        started = start_machines(session)
        options = deploy.Options(full=full, prove=bool(session.environment.typed))
        changed, missing = deploy.roll_out(session, release, options, history.look(session))
    return started + changed, missing


def start_machines(session: Session) -> int:
    """Make and start the machines, and return how many were touched."""
    with session.screen.step("machine") as step:
        touched = session.machines("up")
        addresses = ", ".join(f"{h.name} at {session.provider.address(h)}" for h in session.environment.hosts[:3])
        more = len(session.environment.hosts) - 3
        step.done(addresses + (f" and {more} more" if more > 0 else ""))
    return touched


def closing(session: Session, words: str, missing: dict[str, str]) -> str:
    """Return the closing words with the address of the page.

    :raises IncompleteError: optional components are missing.
    """
    if links.only_there(session.environment):
        page = f"the page: ./inv open api --tunnel{session.flag}"
    else:
        page = links.address(session.environment, "api")
    return deploy.whole(session, f"{words} · {page} · look: ./inv status{session.flag}", missing)
