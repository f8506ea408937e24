"""The verbs that change an environment: up, down, reset."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streampulse.core.errors import IncompleteError, OperatorError, UsageError
from streampulse_ops import ansible, artifacts
from streampulse_ops.environments import lock, secrets
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.hosts import links
from streampulse_ops.verbs import health

DEFAULT_PYTHONS = ("cp311", "cp312", "cp313")
# What a reset can leave alone, with what it is.
KEEPABLE = {
    "kafka": "all events (Kafka's topics)",
    "postgres": "all rows of the tables",
    "checkpoints": "the job's checkpoints",
    "metrics": "what Prometheus and Alertmanager have stored",
}
# How long all that is kept in Kafka may take to be counted anew.
RECOUNT_SECONDS = 1800
# The variable by which a role says what could not be had: its name, and why (ansible.builtin.set_stats).
MISSING = "streampulse_missing"


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


def require_monitoring(session: Session, full: bool) -> None:
    """Check that there is a monitoring group when it is asked for.

    :raises OperatorError: there is none.
    """
    if full and not session.environment.in_group("monitoring"):
        raise OperatorError(
            f"{session.name} has no host in group monitoring: add one to {session.environment.inventory}"
        )


def up(session: Session, full: bool) -> str:
    """Bring everything up that the inventory asks for, check it, and return the closing words.

    :raises IncompleteError: everything is up but what could not be had.
    """
    changed, missing = bring_up(session, full)
    return complete(session, f"{changed} changed · {_page(session)} · look: ./inv status{_flag(session)}", missing)


def bring_up(session: Session, full: bool) -> tuple[int, dict[str, str]]:
    """Bring everything up and check it; return how many changes that made, and what could not be had and why."""
    require_monitoring(session, full)
    session.screen.line(session.headline())
    if not session.ours:
        secrets.file_for(session.environment)  # nothing is fetched for hosts that could not be set up then
    missing: dict[str, str] = {}
    with changing(session, "inv up"):
        file = prepare_artifacts(session)
        changed = start_machines(session)
        changed += configure(session, file, full, missing)
        health.smoke(session)
    return changed, missing


def complete(session: Session, words: str, missing: dict[str, str]) -> str:
    """Return the closing words.

    :param missing: what could not be had, and why.
    :raises IncompleteError: there is any of it.
    """
    if not missing:
        return words
    what = "; ".join(f"{name} could not be had ({why})" for name, why in sorted(missing.items()))
    raise IncompleteError(f"{what}; all the rest is up. When it can be had: inv up --full --env {session.name}", words)


def start_machines(session: Session) -> int:
    """Make and start the machines, and return how many were touched."""
    with session.screen.step("machine") as step:
        touched = session.machines_up()
        addresses = ", ".join(f"{h.name} at {session.provider.address(h)}" for h in session.environment.hosts[:3])
        more = len(session.environment.hosts) - 3
        step.done(addresses + (f" and {more} more" if more > 0 else ""))
    return touched


def configure(session: Session, artifact_facts: Path, full: bool, missing: dict[str, str]) -> int:
    """Run the roles over all hosts, and return how many changes they made.

    :param missing: gets what could not be had, and why.
    """
    extra: ansible.Extra = [artifact_facts, secrets.file_for(session.environment), asked_for(session, full)]
    changed = ansible.play(session.environment, "site", extra, session.screen, session.verbose)
    if full:
        said: dict[str, Any] = {}
        changed += ansible.play(session.environment, "monitoring", extra, session.screen, session.verbose, said=said)
        missing.update({str(name): str(why) for name, why in said.get(MISSING, {}).items()})
    return changed


def asked_for(session: Session, full: bool, keep: Sequence[str] = ()) -> str:
    """Return the variables that say what a run is about.

    :param full: whether the monitoring group is taken in.
    :param keep: what wiping leaves alone.
    """
    return json.dumps({"full": full, "streampulse_environment": session.name, "streampulse_keep": list(keep)})


def down(session: Session, full: bool, wipe: bool) -> str:
    """Stop the services in reverse order, halt the machines that are ours, and return the closing words.

    :param full: stop, or wipe, monitoring too; without it, it goes on on hosts that exist already.
    :param wipe: remove all state as well.
    """
    require_monitoring(session, full)
    session.screen.line(session.headline())
    ours = session.ours
    if _never_made(session):
        return "nothing is there, nothing to do"
    with changing(session, "inv down"):
        stopped = 0
        if not (wipe and ours):  # machines that are removed need no order
            stopped = stop_for_halt(session, full) if ours else stop_services(session, full)
        if wipe and not ours:
            wipe_state(session, full)
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
    extra: ansible.Extra = [secrets.file_for(session.environment), asked_for(session, full)]
    stopped = 0
    for playbook, name in [("monitoring_stop", "monitoring")] * full + [("stop", "services")]:
        stopped += ansible.play(
            session.environment, playbook, extra, session.screen, session.verbose, hosts=running, name=name
        )
    return stopped


def wipe_state(session: Session, full: bool, keep: Sequence[str] = ()) -> int:
    """Remove the services' state on the hosts, and return how many changes that made.

    :param keep: what is left alone, of KEEPABLE.
    """
    extra: ansible.Extra = [secrets.file_for(session.environment), asked_for(session, full, keep)]
    wiped = 0
    for playbook, name in [("monitoring_wipe", "metrics")] * full + [("wipe", "state")]:
        wiped += ansible.play(session.environment, playbook, extra, session.screen, session.verbose, name=name)
    return wiped


def kept(text: str) -> tuple[str, ...]:
    """Return what a reset is to leave alone.

    :param text: words of KEEPABLE, separated by commas.
    :raises UsageError: there is no such thing to keep, or it cannot be kept without another.
    """
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in words if word not in KEEPABLE]
    if unknown:
        raise UsageError(f"{unknown[0]} is nothing that can be kept. There are: {', '.join(KEEPABLE)}")
    for word, needed, why in (
        ("checkpoints", "postgres", "ahead of new tables, they would have events passed over"),
        ("postgres", "kafka", "numbers whose events are gone could never be recomputed"),
    ):
        if word in words and needed not in words:
            # With what that needs in its turn.
            whole = [each for each in ("kafka", "postgres") if each == needed or each not in words]
            raise UsageError(
                f"{word} cannot be kept without {needed}: {why}; inv reset --keep {','.join([*whole, *words])}"
            )
    return words


def reset(session: Session, full: bool, keep: Sequence[str] = ()) -> str:
    """Remove topics, checkpoints and tables together, start again, check, and return the closing words.

    :param keep: what is left alone, of KEEPABLE.
    :raises IncompleteError: everything is up again but what could not be had.
    """
    require_monitoring(session, full)
    _require_anything(session)
    session.screen.line(session.headline())
    missing: dict[str, str] = {}
    with changing(session, "inv reset"):
        file = prepare_artifacts(session)
        start_machines(session)
        stop_services(session, full)
        wipe_state(session, full, keep)
        configure(session, file, full, missing)
        # Events that are kept without their tables are counted anew, and those of the smoke test wait behind them.
        health.smoke(session, RECOUNT_SECONDS if "kafka" in keep and "postgres" not in keep else 0)
    words = f"state is {'as new but for what was kept' if keep else 'new'} · {_page(session)}"
    return complete(session, f"{words} · look: ./inv status{_flag(session)}", missing)


def reset_plan(session: Session, full: bool, keep: Sequence[str] = ()) -> list[str]:
    """Return what a reset would do, line by line.

    :param keep: what is left alone, of KEEPABLE.
    """
    require_monitoring(session, full)
    _require_anything(session)
    hosts = ", ".join(host.name for host in session.environment.hosts)
    about = [name for name in KEEPABLE if full or name != "metrics"]
    gone = ", ".join(KEEPABLE[name] for name in about if name not in keep)
    left = ", ".join(KEEPABLE[name] for name in about if name in keep)
    return [
        f"reset of {session.name} would, on {hosts}:",
        *(["  stop Prometheus, Alertmanager, the probe and the exporters"] if full else []),
        "  stop the generator, the API, the job, Spark, Kafka and PostgreSQL, in that order",
        f"  remove {gone}" if gone else "  remove nothing that is of lasting value",
        *([f"  keep {left}"] if left else []),
        "  start everything again and run the smoke test",
        *([] if full else ["  leave monitoring alone (--full takes it in)"]),
    ]


def reset_question(name: str, full: bool, keep: Sequence[str] = ()) -> str:
    """Return what is asked before a reset.

    :param name: the environment.
    :param keep: what is left alone, of KEEPABLE.
    """
    about = [word for word in KEEPABLE if word not in keep and (full or word != "metrics")]
    return f"This removes {', '.join(KEEPABLE[word] for word in about) or 'nothing, and restarts all'} of {name}."


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


def _never_made(session: Session) -> bool:
    """Return whether there are no machines to do anything to.

    Machines of ours are known from the state that is kept of them here. Hosts that exist already may have been set up
    from another control machine.
    """
    return session.ours and not session.environment.state.is_dir()


def _require_anything(session: Session) -> None:
    """Check that machines of ours were ever made.

    :raises OperatorError: there is nothing to reset.
    """
    if _never_made(session):
        raise OperatorError(f"nothing of {session.name} is there that could be reset: inv up{_flag(session)}")


def _page(session: Session) -> str:
    """Return where the page is, or the command that leads to one that only its own host can ask."""
    if links.only_there(session.environment):
        return f"the page: ./inv open api --tunnel{_flag(session)}"
    return links.api(session.environment)


def _flag(session: Session) -> str:
    return "" if session.name == "local" else f" --env {session.name}"
