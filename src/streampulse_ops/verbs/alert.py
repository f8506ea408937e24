"""``inv alert test``: one alert through Alertmanager to the receivers of a severity. Deploys are told the same way."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from streampulse.core.errors import IncompleteError, OperatorError, UsageError
from streampulse_ops.cli.console import took
from streampulse_ops.cli.ownership import author
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import monitoring
from streampulse_ops.monitoring import receivers
from streampulse_ops.monitoring.receivers import Way

NAME: Final = "AlertTest"
#: Seconds for a host's answer, which may wait for its receivers.
SECONDS: Final = 60.0
SETTINGS: Final = "docs/reference/settings.md#role-alertmanager"


def test(session: Session, severity: str, dry_run: bool) -> str:
    """Send an alert through each Alertmanager, print who was notified, and return the closing words.

    :raises UsageError: there is no such severity.
    :raises IncompleteError: an Alertmanager could not be asked.
    :raises OperatorError: nobody is notified of this severity, or a receiver was not notified.
    """
    if severity not in receivers.SEVERITIES:
        raise UsageError(f"{severity} is not a severity. There are: {', '.join(receivers.SEVERITIES)}")
    faults, unknown, words = [], [], ""
    for host in session.environment.require_group("monitoring"):
        try:
            words = _test(session, host, severity, dry_run)
        except IncompleteError as error:
            unknown.append(str(error))
        except OperatorError as error:
            faults.append(f"{host.name}: {error}")
    if faults:
        raise OperatorError("; ".join([*faults, *unknown]))
    if unknown:
        raise IncompleteError("; ".join(unknown), words or "no receiver was tried")
    return words


def _test(session: Session, host: Host, severity: str, dry_run: bool) -> str:
    try:
        way = _way(session, host, severity)
    except OperatorError as error:
        raise IncompleteError(f"{host.name}: {error}", "no receiver was tried") from None
    if way is None:
        raise OperatorError(f"monitoring has not been set up: inv up --full --env {session.name}")
    if not way.notified:
        raise OperatorError(
            f"no receiver is set for {severity}: set alertmanager_receivers ({SETTINGS}), "
            f"then inv up --full --env {session.name}"
        )
    listed = ", ".join(way.notified)
    if dry_run:
        session.screen.line(f"  {host.name}: {severity} goes to {listed}{f'; it waits: {way.waits}' * bool(way.waits)}")
        return "nothing was sent"
    labels = {"alertname": NAME, "severity": severity, "service": "alertmanager", "environment": session.name}
    annotations = {
        "summary": f"Test of the receivers of {severity}",
        "description": f"Sent with `inv alert test` by {author()}. Nothing is wrong.",
    }
    seen = _send(session, host, labels, annotations, severity, None if way.waits else way)
    _check_not_suppressed(session, seen)
    if way.waits:
        session.screen.line(f"  {host.name}: Alertmanager keeps the {severity}, because it is {way.waits}: {listed}")
        return f"a {severity} waits now: it is {way.waits}"
    if seen["notified"] is None or (way.resolved and seen["resolved"] is None):
        what = "the alert" if seen["notified"] is None else "the end of the alert"
        why = ": " + "; ".join(seen["causes"]) if seen["causes"] else ""
        raise OperatorError(
            f"{', '.join(seen['missing'])} did not take {what}{why}. Correct the receiver ({SETTINGS}), then "
            f"inv up --full --env {session.name}. Journal: inv logs alertmanager --env {session.name}"
        )
    resolved = f", its end after {took(seen['resolved'])} more ({', '.join(way.resolved)})" if way.resolved else ""
    session.screen.line(f"  {host.name}: {listed} took the {severity} after {took(seen['notified'])}{resolved}")
    return f"the receivers of {severity} answer"


def _check_not_suppressed(session: Session, seen: dict[str, Any]) -> None:
    """Refuse a test that a silence or another alert suppressed.

    :raises OperatorError: it was suppressed.
    """
    if seen["silences"]:
        identity = seen["silences"][0].partition("-")[0]
        raise OperatorError(f"a silence suppresses the test: inv silence --expire {identity} --env {session.name}")
    if seen["inhibited"]:
        raise OperatorError(f"another alert suppresses the test: inv status --full --env {session.name}")


def inform(session: Session, name: str, summary: str, release: str) -> None:
    """Tell the receivers of info about a deploy. Without monitoring or such receivers nothing is sent.

    A failure is printed and not raised: the deploy is done.
    """
    for host in session.environment.in_group("monitoring")[:1]:
        try:
            way = _way(session, host, "info")
            if way is None or not way.notified:
                return
            labels = {"alertname": name, "severity": "info", "service": "release", "release": release}
            annotations = {"summary": summary, "description": f"By {author()}."}
            _send(session, host, {**labels, "environment": session.name}, annotations, "info", None)
        except OperatorError as error:
            session.screen.line(f"  the receivers of info were not told: {error}")


def _way(session: Session, host: Host, severity: str) -> Way | None:
    """Return the way of a severity's alerts through a host's Alertmanager, None without monitoring.

    :raises OperatorError: the host or its Alertmanager cannot be asked.
    """
    answer = monitoring.answer(session, host, ["alert", "--config"], seconds=SECONDS)
    try:
        return None if answer is None else receivers.way(answer["config"], severity, datetime.now(UTC))
    except KeyError:
        raise OperatorError(
            f"Alertmanager has a configuration of another release: inv up --full --env {session.name}"
        ) from None


def _send(
    session: Session, host: Host, labels: dict[str, str], annotations: dict[str, str], receiver: str, way: Way | None
) -> dict[str, Any]:
    """Send an alert and return what the host has seen of it.

    :param way: the integrations to wait for; None: the alert ends by itself.
    """
    words = ["alert", "--send", json.dumps({"labels": labels, "annotations": annotations}), "--receiver", receiver]
    if way:
        words += ["--notified", ",".join(way.notified), "--resolved", ",".join(way.resolved)]
    return dict(monitoring.answer(session, host, words, seconds=SECONDS))
