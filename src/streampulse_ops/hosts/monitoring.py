"""The report of the monitoring host: promises and budgets, alerts, lag and freshness, targets."""

import json
from collections.abc import Sequence
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse.host.slo.report import Report
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command
from streampulse_ops.hosts.ssh import Remote

ANSWER_SECONDS = 30.0


def ask(session: Session, remote: Remote | None = None) -> Report | None:
    """Return the report of the first monitoring host, None where monitoring has not been set up.

    :param remote: an open connection to that host.
    :raises OperatorError: the host cannot be asked, or Prometheus does not answer there.
    """
    host = session.environment.require_group("monitoring")[0]
    document = answer(session, host, ["slo", "--json"], remote=remote)
    return None if document is None else Report.read(document)


def answer(
    session: Session, host: Host, words: Sequence[str], *, remote: Remote | None = None, seconds: float = ANSWER_SECONDS
) -> Any:
    """Run the ``streampulse`` command on a monitoring host and return its answer.

    :raises OperatorError: the host cannot be asked, the command failed, or its answer is no JSON.
    """
    code, output, errors = command.run(session, host, words, full=True, remote=remote, timeout=seconds)
    if code != 0:
        raise OperatorError(command.with_environment(command.said(code, "", errors), session.name))
    try:
        return json.loads(output)
    except ValueError:
        raise OperatorError(
            f"{host.name} does not answer as it should ({output.strip()[:80]}): inv up --full --env {session.name}"
        ) from None


def require(session: Session) -> Report:
    """Return the report of the first monitoring host.

    :raises OperatorError: monitoring has not been set up, or cannot be asked.
    """
    report = ask(session)
    if report is None:
        raise OperatorError(f"{session.name} has no monitoring: inv up --full --env {session.name}")
    return report
