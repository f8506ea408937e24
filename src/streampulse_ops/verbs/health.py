"""Asking the running stack: smoke, verify and peek, which run on a host beside Spark's master."""

from __future__ import annotations

import sys

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.remote import Remote

COMMAND = "/usr/local/bin/streampulse"
#: What that ends with where it is told to do what it cannot.
WRONG_USAGE = 2
# Each is read every ten seconds.
TARGETS_SECONDS = 30


def looking_host(environment: Environment) -> Host:
    """Return the host that the checks run on: it has the settings of Kafka, of PostgreSQL and of the job.

    :raises OperatorError: the inventory has none.
    """
    hosts = environment.in_group("spark_master")
    if not hosts:
        raise OperatorError(f"{environment.name} has no host in group spark_master: add one to {environment.inventory}")
    return hosts[0]


def on_host(session: Session, arguments: list[str], live: bool) -> tuple[int, str, str]:
    """Run streampulse's own command on the looking host.

    :raises OperatorError: the host is down or cannot be reached, or streampulse is not installed there.
    """
    host = looking_host(session.environment)
    if session.ours:
        session.require_running(host)
    with Remote(session.environment, host) as remote:
        code, output, errors = remote.run([COMMAND, *arguments], live=live)
    if code == 127:
        raise OperatorError(f"streampulse is not installed on {host.name}: inv up --env {session.name}")
    return code, output, errors


def smoke(session: Session, seconds: int = 0) -> None:
    """Send a few events and expect exactly their numbers everywhere.

    :param seconds: how long they may take; the command's own limit when 0.
    :raises OperatorError: an event did not pass; the text names the hop.
    """
    with session.screen.step("smoke") as step:
        step.note("sending a few events and waiting for their numbers")
        patience = ["--timeout", str(seconds)] if seconds else []
        code, output, errors = on_host(session, ["smoke", *patience], live=False)
        said = [line for line in output.splitlines() if line.strip()]
        if code != 0:
            wrong = [line for line in errors.splitlines() if line.strip()] or said or [f"exit code {code}"]
            reason = wrong[-1].strip().removeprefix("streampulse: ")
            raise OperatorError(f"smoke failed: {reason}. Look: inv doctor --env {session.name}")
        step.done(said[-1].strip() if said else "passed")


def targets(session: Session) -> None:
    """Check that Prometheus reads every target.

    :raises OperatorError: it does not, or there is none; the text says what it does not read.
    """
    hosts = session.environment.in_group("monitoring")
    again = f"inv up --full --env {session.name}"
    if not hosts:
        raise OperatorError(
            f"{session.name} has no host in group monitoring: add one to {session.environment.inventory}"
        )
    with session.screen.step("targets") as step:
        step.note("asking Prometheus for its targets")
        if session.ours:
            session.require_running(hosts[0])
        with Remote(session.environment, hosts[0]) as remote:
            code, output, errors = remote.run([COMMAND, "wait", "targets", "--timeout", str(TARGETS_SECONDS)])
        if code == 127:
            raise OperatorError(f"monitoring has not been set up: {again}")
        said = [line.strip() for line in (output if code == 0 else errors).splitlines() if line.strip()]
        reason = (said or [f"exit code {code}"])[-1].removeprefix("streampulse: ").removeprefix("targets: ")
        if code != 0:
            raise OperatorError(f"{reason}; when it is mended: {again}")
        step.done(reason)


def verify(session: Session, arguments: list[str]) -> None:
    """Recompute every number from the raw topic and compare.

    :raises OperatorError: numbers differ, or could not be compared.
    """
    code, _, errors = on_host(session, ["verify", *arguments], live=True)
    if code != 0:
        said = [line for line in errors.splitlines() if line.strip()]
        why = f" ({said[-1].strip()})" if said else ""
        raise OperatorError(f"the numbers were not confirmed{why}: see above, and inv doctor --env {session.name}")


def peek(session: Session, topic: str, count: int) -> None:
    """Print the newest records of a topic.

    :raises UsageError: so many records, or a topic of that name, cannot be asked for.
    :raises OperatorError: they could not be read.
    """
    arguments = ["peek", "-n", str(count), *([topic] if topic else [])]
    code, output, errors = on_host(session, arguments, live=False)
    if code != 0:
        said = [line.strip() for line in (errors or output).splitlines() if line.strip()] or [f"exit code {code}"]
        # On the host the program has its own name, and for wrong usage its own form.
        reason = said[-1].removeprefix("streampulse: ").removeprefix("streampulse peek: error: ")
        if code == WRONG_USAGE:
            raise UsageError(f"{reason}. See: inv --help peek")
        raise OperatorError(f"{reason}. See: inv --help peek, inv doctor --env {session.name}")
    # As it came, byte for byte: what could do harm to a terminal was taken out where it was read.
    sys.stdout.write(output)
    sys.stdout.flush()
