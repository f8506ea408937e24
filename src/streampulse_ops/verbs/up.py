"""``inv up``: artifacts, machines, roles, smoke test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streampulse.core.errors import IncompleteError
from streampulse_ops import ansible, artifacts
from streampulse_ops.environments import secrets
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.hosts import links
from streampulse_ops.verbs.smoke import smoke

#: `set_stats` key under which a role reports optional components that it could not install, with the reason.
MISSING = "streampulse_missing"


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
    missing: dict[str, str] = {}
    with changing(session, "inv up"):
        facts = prepare_artifacts(session)
        changed = start_machines(session)
        changed += configure(session, facts, full, missing)
        smoke(session)
    return changed, missing


def prepare_artifacts(session: Session) -> Path:
    """Fetch or build the artifacts of the hosts, and return the file of variables that tells the roles."""
    file = session.environment.state / "artifacts.json"
    with session.screen.step("artifacts") as step:
        pythons, machine = artifacts.pythons_of(session.environment), artifacts.architecture_of(session.environment)
        prepared = artifacts.prepare(pythons, machine, step.note)
        step.done(prepared.summary())
    artifacts.write_facts(prepared, file)
    return file


def start_machines(session: Session) -> int:
    """Make and start the machines, and return how many were touched."""
    with session.screen.step("machine") as step:
        touched = session.machines("up")
        addresses = ", ".join(f"{h.name} at {session.provider.address(h)}" for h in session.environment.hosts[:3])
        more = len(session.environment.hosts) - 3
        step.done(addresses + (f" and {more} more" if more > 0 else ""))
    return touched


def configure(session: Session, facts: Path, full: bool, missing: dict[str, str]) -> int:
    """Run the roles over all hosts, and return the number of changes.

    :param facts: the file of variables about the artifacts.
    :param missing: gets the components that could not be installed, with the reasons.
    """
    extra: ansible.Extra = [facts, *variables(session, full)]
    changed = ansible.play(session.environment, "site", extra, session.screen, session.verbose)
    if full:
        said: dict[str, Any] = {}
        changed += ansible.play(session.environment, "monitoring", extra, session.screen, session.verbose, said=said)
        missing.update({str(name): str(why) for name, why in said.get(MISSING, {}).items()})
    return changed


def variables(session: Session, full: bool, keep: Sequence[str] | None = None) -> ansible.Extra:
    """Return the variables of every playbook: the secrets, and the options of the task.

    :param keep: the state that ``inv reset`` leaves alone; None for other tasks, whose wiping leaves nothing.
    """
    options = {
        "full": full,
        "streampulse_environment": session.name,
        "streampulse_reset": keep is not None,
        "streampulse_keep": list(keep or ()),
    }
    return [secrets.file_for(session.environment), json.dumps(options)]


def closing(session: Session, words: str, missing: dict[str, str]) -> str:
    """Return the closing words with the address of the page.

    :raises IncompleteError: optional components are missing.
    """
    if links.only_there(session.environment):
        page = f"the page: ./inv open api --tunnel{session.flag}"
    else:
        page = links.api(session.environment)
    words = f"{words} · {page} · look: ./inv status{session.flag}"
    if not missing:
        return words
    what = "; ".join(f"{name} could not be installed ({why})" for name, why in sorted(missing.items()))
    raise IncompleteError(f"{what}; all the rest is up. To try again: inv up --full --env {session.name}", words)
