"""Check the rules and Alertmanager's configuration with Prometheus' own programs: one of the linters.

``python -m streampulse_ops.monitoring.promlint`` runs it by itself.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jinja2

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.command import program_environment
from streampulse_ops.monitoring import promtools, rules

#: The exit code when a program is missing, after the reason.
NOT_DONE: Final = 3


#: Receivers and times for tests, each of which may be set or not. Texts have characters that YAML treats specially.
SETTINGS: Final[dict[str, Any]] = {
    "alertmanager_webhook_url": "https://hooks.example/path?key=a#b",
    "alertmanager_slack_url": "https://chat.example/hook",
    "alertmanager_email": {
        "to": "ops@example.org, more@example.org",
        "from": "streampulse@example.org",
        "smarthost": "mail.example.org:587",
        "username": "ops",
        "password": 'it\'s: "quoted" # and \\',
    },
    "alertmanager_deadman_url": "https://deadman.example/ping",
    "alertmanager_receivers": {
        "page": {"pagerduty_key": "a key", "opsgenie_key": "a key", "opsgenie_url": "https://api.eu.opsgenie.example/"},
        "ticket": {"email_to": "desk@example.org", "webhook_url": "https://hooks.example/tickets"},
        "info": {"slack_url": "https://chat.example/deploys"},
    },
    "alertmanager_working_hours": [
        {
            "weekdays": ["monday:friday"],
            "times": [{"start_time": "09:00", "end_time": "17:30"}],
            "location": "Europe/Berlin",
        }
    ],
    "alertmanager_maintenance": [
        {"days_of_month": ["-7:-1"], "months": ["march"], "times": [{"start_time": "22:00", "end_time": "24:00"}]}
    ],
}
#: The receiver of each alert.
ROUTES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("page", ("alertname=KafkaDown", "severity=page", "service=kafka", "host=a")),
    ("page", ("alertname=FreshnessBudgetBurning", "severity=page", "service=slo", "slo=freshness")),
    ("ticket", ("alertname=FreshnessBudgetBurning", "severity=ticket", "service=slo", "slo=freshness")),
    ("ticket", ("alertname=UnitFlapping", "severity=ticket", "service=job", "host=a")),
    ("deadman", ("alertname=Watchdog", "severity=none", "service=prometheus")),
    ("info", ("alertname=Deployed", "severity=info", "service=release")),
    ("page", ("alertname=AlertTest", "severity=page", "service=alertmanager")),
    ("nobody", ("alertname=RecentOutage", "severity=none", "service=slo", "cause=kafka")),
    # A rule without a severity.
    ("ticket", ("alertname=Whatever",)),
)


def alertmanager_configuration(root: Path, **given: Any) -> str:
    """Return Alertmanager's configuration as the role writes it.

    :param given: the role's variables that are set; the others are empty. ``streampulse_etc``: the folder of the keys.
    """
    environment = jinja2.Environment(  # noqa: S701 - no HTML
        loader=jinja2.FileSystemLoader(root / "prometheus"), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["to_json"] = json.dumps
    empty = {name: type(value)() for name, value in SETTINGS.items()}
    folder = {"streampulse_etc": "/etc/streampulse"}
    return environment.get_template("alertmanager.yml.j2").render({**empty, **folder, **given})


def combinations() -> Iterator[dict[str, Any]]:
    """Yield settings: none, each with the mail server that addresses need, all."""
    yield {}
    for name, value in SETTINGS.items():
        yield {"alertmanager_email": SETTINGS["alertmanager_email"], name: value}
    yield SETTINGS


def commands(root: Path, scratch: Path) -> Iterator[list[str]]:
    """Yield each command line that must end with 0.

    :param scratch: an empty folder for what is looked at.
    :raises promtools.Unavailable: a program is not here and cannot be fetched.
    """
    promtool = str(promtools.find("promtool", _say))
    rendered = rules.write(scratch / "rules")
    # The tests name the rules by their place beside them.
    tests = shutil.copytree(root / "prometheus/tests", scratch / "tests")
    yield [promtool, "check", "rules", "--lint-fatal", *map(str, rendered)]
    yield [promtool, "test", "rules", *map(str, sorted(tests.glob("*.yml")))]
    files = []
    for number, given in enumerate(combinations()):
        file = scratch / f"alertmanager-{number}.yml"
        file.write_text(alertmanager_configuration(root, **given), encoding="utf-8")
        files.append(str(file))
    amtool = str(promtools.find("amtool", _say))
    yield [amtool, "check-config", *files]
    for receiver, labels in ROUTES:
        asked = [f"--config.file={files[-1]}", f"--verify.receivers={receiver}", *labels]
        yield [amtool, "config", "routes", "test", *asked]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Check everything and return 0, 1 with the faults, or :data:`NOT_DONE`."""
    wrong = False
    try:
        root = paths.repository()
        with tempfile.TemporaryDirectory() as scratch:
            for command in commands(root, Path(scratch)):
                done = subprocess.run(  # noqa: S603 - lists made here, no shell
                    command,
                    cwd=root,
                    env=program_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                if done.returncode != 0:
                    wrong = True
                    _say(done.stdout.rstrip())
    except promtools.Unavailable as error:
        _say(f"the rules were not looked at: {error}")
        return NOT_DONE
    except OperatorError as error:
        _say(str(error))
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
