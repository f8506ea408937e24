"""``inv start``, ``inv stop`` and ``inv restart``: one service on its hosts."""

import dataclasses
import json

from streampulse.core.errors import OperatorError
from streampulse_ops import ansible, services
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.releases import history
from streampulse_ops.verbs.deploy import prepare, variables
from streampulse_ops.verbs.up import start_machines


def change(
    session: Session, name: str, action: str, *, host: str = "", rolling: bool = False, dry_run: bool = False
) -> str:
    """Start, stop or restart a service, wait until it is ready, and return the closing words.

    Starting also boots machines that are down, and writes the service's files again as the running release has them.

    :param action: start, stop or restart.
    :param host: only on this host; empty for all hosts of the service.
    :param rolling: one host at a time, each behind its gate.
    :raises OperatorError: no host has the service, a host is not running, or the service did not become ready.
    """
    service = services.named(name)
    hosts = services.hosts_of(session.environment, service)
    if host and session.environment.host(host) not in hosts:
        there = ", ".join(each.name for each in hosts) or "no host"
        raise OperatorError(f"{host} does not run {name}, {there} does: inv status{session.flag}")
    if not hosts:
        raise OperatorError(f"{session.name} has no host with {name}: inv status{session.flag}")
    chosen = [each for each in hosts if host in ("", each.name)]
    boots = action == "start" and session.ours and not dry_run and not session.never_made
    for each in [] if boots else chosen:
        session.require_running(each)
    options = {"service": name, "service_action": action, "service_rolling": rolling}
    with changing(session, f"inv {action}"):
        extra = variables(session, service.full)
        booted = start_machines(session) if boots else 0
        # Only these hosts: another one may be away.
        asked = dataclasses.replace(session, environment=dataclasses.replace(session.environment, hosts=tuple(chosen)))
        seen = history.look(asked) if action == "start" else None
        running = history.find(session, seen, seen.running) if seen and seen.running else None
        environment = session.environment
        if running:
            release = prepare(session, running)
            environment, extra = release.session.environment, [release.facts, *extra]
        changed = booted + ansible.play(
            environment,
            "service",
            [*extra, json.dumps({**options, "service_configure": running is not None})],
            session.screen,
            session.verbose,
            hosts=chosen,
            name=name,
            check=dry_run,
        )
    if dry_run:
        return f"nothing was changed; {changed} would be"
    return f"{changed} changed" + (f" · start it again: ./inv start {name}{session.flag}" if action == "stop" else "")
