"""``streampulse alert``: send one alert to Alertmanager, and see which of its integrations notify people.

Alertmanager counts the requests to receivers by integration and not by alert, so an alert that fires at the same time
may be counted too. A receiver's answer is known only where it is an error, from Alertmanager's journal.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from streampulse.core.errors import UsageError
from streampulse.host.slo.server import Alertmanager, monitoring, monitoring_or_none

#: Maximum time until every integration has notified. Alertmanager retries within it.
NOTIFY_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.25
#: An alert that nobody waits for ends after this time.
LASTING_SECONDS: Final = 60
_SAMPLE: Final = re.compile(
    r'^alertmanager_notification_requests_(failed_)?total\{[^}]*integration="(\w+)"[^}]*\} (\S+)$'
)
_RECEIVER: Final = re.compile(r'receiver="?([\w-]+)|err="([\w-]+)/')
_CAUSE: Final = re.compile(r'\berr="((?:[^"\\]|\\.)*)"')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse alert``."""
    parser.add_argument("--config", action="store_true", help="print the running configuration, as JSON")
    parser.add_argument("--send", metavar="JSON", help="an alert: its labels and its annotations")
    parser.add_argument("--receiver", default="", help="the receiver that is waited for")
    parser.add_argument("--notified", default="", metavar="LIST", help="the receiver's integrations, by commas")
    parser.add_argument("--resolved", default="", metavar="LIST", help="those that also notify the end")


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration, or send an alert and print what came of it, as JSON; null without monitoring.

    :raises UsageError: the alert is not JSON of that form.
    :raises OperatorError: Alertmanager does not answer, or refuses the alert.
    """
    if monitoring_or_none() is None:
        document: Any = None
    elif arguments.config:
        document = {"config": Alertmanager(monitoring()).configuration()}
    else:
        try:
            alert = json.loads(arguments.send or "")
            labels, annotations = dict(alert["labels"]), dict(alert["annotations"])
        except (ValueError, KeyError, TypeError):
            raise UsageError('--send takes {"labels": {...}, "annotations": {...}}') from None
        wanted = [Counter(filter(None, text.split(","))) for text in (arguments.notified, arguments.resolved)]
        document = send(Alertmanager(monitoring()), labels, annotations, arguments.receiver, *wanted)
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


def send(
    alertmanager: Alertmanager,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    receiver: str,
    notified: Mapping[str, int],
    resolved: Mapping[str, int],
) -> dict[str, Any]:
    """Send an alert, wait until its receiver was notified, end the alert, and return what was seen.

    :param notified: how many integrations of each kind are waited for. With none, the alert ends by itself.
    :param resolved: the same for the end of the alert.
    :return: seconds until ``notified`` and ``resolved``, None if that did not happen; ``missing``: the kinds that did
        not notify; ``causes``: the receiver's errors; ``silences`` and ``inhibited``: what suppresses the alert.
    :raises OperatorError: Alertmanager does not answer, or refuses the alert.
    """
    began = datetime.now(UTC)
    alert = {"labels": dict(labels), "annotations": dict(annotations), "startsAt": began.isoformat()}
    before = requests(alertmanager)
    alertmanager.post_alert({**alert, "endsAt": (began + timedelta(seconds=LASTING_SECONDS)).isoformat()})
    seen: dict[str, Any] = {"notified": None, "resolved": None, "missing": [], "causes": []}
    if notified:
        seen["notified"], seen["missing"] = _wait(alertmanager, before, notified)
    held = (item for item in alertmanager.alerts() if item["labels"] == dict(labels))
    status: dict[str, Any] = next(held, {"status": {}})["status"]
    seen |= {"silences": status.get("silencedBy", []), "inhibited": bool(status.get("inhibitedBy"))}
    if notified:
        middle = requests(alertmanager)
        alertmanager.post_alert({**alert, "endsAt": datetime.now(UTC).isoformat()})
        if resolved and seen["notified"] is not None:
            seen["resolved"], seen["missing"] = _wait(alertmanager, middle, resolved)
    if seen["missing"]:
        seen["causes"] = causes(_journal(began), receiver)
    return seen


def requests(alertmanager: Alertmanager) -> Counter[str]:
    """Return how many requests to receivers succeeded until now, by integration."""
    found: Counter[str] = Counter()
    for line in alertmanager.metrics().splitlines():
        if sample := _SAMPLE.match(line):
            found[sample[2]] += int(float(sample[3])) * (-1 if sample[1] else 1)
    return found


def _wait(
    alertmanager: Alertmanager, before: Counter[str], wanted: Mapping[str, int]
) -> tuple[float | None, list[str]]:
    """Wait until integrations have notified; return the seconds, None if they did not, and the missing kinds."""
    began = time.monotonic()
    while True:
        succeeded = requests(alertmanager) - before
        passed = time.monotonic() - began
        missing = [kind for kind, count in wanted.items() if succeeded[kind] < count]
        if not missing:
            return passed, []
        if passed > NOTIFY_SECONDS:
            return None, missing
        time.sleep(POLL_SECONDS)


def causes(log: Iterable[str], receiver: str) -> list[str]:
    """Return the errors of a receiver in Alertmanager's log, each once."""
    found: dict[str, None] = {}
    for line in log:
        about, cause = _RECEIVER.search(line), _CAUSE.search(line)
        if cause and about and receiver in about.groups():
            text = str(json.loads(f'"{cause[1]}"'))
            # The end of the retries repeats the cause after a head that says so.
            found[text.rpartition(" attempts: ")[2]] = None
    return list(found)


def _journal(since: datetime) -> list[str]:
    """Return the lines of Alertmanager's journal since an instant."""
    words = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--unit=prometheus-alertmanager.service"]
    done = subprocess.run(  # noqa: S603 - a list made here
        [*words, f"--since=@{since.timestamp():.3f}"], capture_output=True, text=True, errors="replace", check=False
    )
    return done.stdout.splitlines() if done.returncode == 0 else []
