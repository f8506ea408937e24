"""``inv doctor --mute``: codes that a person has muted in an environment, until when and why."""

import dataclasses
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streampulse.core.errors import OperatorError, UsageError
from streampulse.host.slo import silence
from streampulse_ops.cli.ownership import author, give_to_invoker
from streampulse_ops.environments.session import Session
from streampulse_ops.monitoring import findings as catalogue
from streampulse_ops.monitoring.findings import Finding
from streampulse_ops.verbs.silence import known

FILE = "muted.json"


def mute(session: Session, code: str, duration: str, reason: str) -> str:
    """Mute a code for a while and return the closing words. Muting it again replaces the time and the reason.

    :param duration: such as ``7d``; at most 30 days.
    :raises UsageError: the code, the duration or the reason is missing or wrong.
    :raises OperatorError: the environment has not been made.
    """
    if not code:
        raise UsageError("mute which code? inv doctor --mute SP-KAFKA-004 --for 7d --reason TEXT")
    known(code, list(catalogue.codes()), "a code of doctor")
    until = time.time() + silence.seconds_of(duration)
    reason = silence.why(reason)
    if session.never_made:
        raise OperatorError(f"{session.name} has not been made: inv up --env {session.name}")
    session.make_state()
    file = session.environment.state / FILE
    muted = {**_read(file), code: {"until": until, "reason": reason, "author": author()}}
    file.write_text(json.dumps(muted, indent=2) + "\n", encoding="utf-8")
    give_to_invoker(file)
    return f"{code} is muted until {_day(until)}"


def applied(session: Session, findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the reason for which their code is muted now.

    :raises OperatorError: the file of muted codes is damaged.
    """
    muted = {
        code: each for code, each in _read(session.environment.state / FILE).items() if each["until"] > time.time()
    }
    return [_marked(each, muted.get(each.code)) for each in findings]


def _marked(finding: Finding, mute: dict[str, Any] | None) -> Finding:
    if finding.ok or mute is None:
        return finding
    text = f"{mute['author']} until {_day(mute['until'])}: {mute['reason']}"
    return dataclasses.replace(finding, muted=text)


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise OperatorError(f"{file} is damaged ({error}): rm {file}") from None


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
