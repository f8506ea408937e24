"""A real Alertmanager with streampulse's configuration, and a server that stands for its receivers."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_server import Answer, Request, serving
from ports import free_port
from stack import until

from streampulse_ops.monitoring import promlint, promtools, rules

ROOT = Path(__file__).parents[2]
#: Alertmanager opens its templates here.
TEMPLATES = Path("/usr/share/prometheus/alertmanager")
BY_NAME = {(each.name, each.severity): each for each in rules.alerts()}


@dataclass
class Told:
    """Stands for the receivers: stores notifications by path."""

    url: str = ""
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    #: The status that a path answers; 200 without.
    answers: dict[str, int] = field(default_factory=dict)

    def answer(self, request: Request) -> Answer:
        self.bodies.append((request.path, request.document))
        return self.answers.get(request.path, 200), b""

    def names(self, path: str, status: str = "firing") -> set[str]:
        return {
            alert["labels"]["alertname"]
            for where, body in self.bodies
            if where == path
            for alert in body["alerts"]
            if alert["status"] == status
        }


@contextmanager
def receiving() -> Iterator[Told]:
    """Run a server that stands for receivers."""
    told = Told()
    with serving(told.answer) as told.url:
        yield told


class Alertmanager:
    """A running Alertmanager and its queries."""

    def __init__(self, port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self.log = folder / "log"

    def configure(self, **given: Any) -> None:
        """Write the configuration that follows from the role's variables."""
        given = {"streampulse_etc": str(self.folder), **given}
        text = promlint.alertmanager_configuration(ROOT, **given)
        (self.folder / "alertmanager.yml").write_text(text, encoding="utf-8")

    def reload(self, **given: Any) -> None:
        """Run with another configuration."""
        self.configure(**given)
        self.ask("/-/reload", {})

    def ask(self, path: str, body: Any = None) -> Any:
        method = "GET" if body is None else "POST"
        answer = httpx.request(method, f"{self.url}{path}", json=body, timeout=5)
        answer.raise_for_status()
        return answer.json() if "json" in answer.headers.get("Content-Type", "") else answer.text

    def fire(self, *names: str) -> None:
        """Send alerts: ``Name``, ``Name@host``, and with ``/ticket`` the ticket of that name.

        Alerts without a host but with a service use ``Name@service``.
        """
        sent = []
        for text in names:
            name, _, severity = text.partition("/")
            name, _, host = name.partition("@")
            made = next(each for key, each in BY_NAME.items() if key[0] == name and severity in ("", key[1]))
            labels = {"alertname": made.name, "severity": made.severity, "environment": "test", **made.labels}
            labels["service"] = made.service if "{{" not in made.service else "job"
            if made.name == "RecentOutage":
                labels["cause"] = host
            elif made.name == "ServiceAway":
                labels["service"] = host
            elif made.name.startswith("Outage"):
                # The outage of host a or b, or otherwise of a service.
                labels |= {"service": "host", "host": host} if host in ("a", "b") else {"service": host}
            elif made.per_host:
                labels["host"] = host or "a"
            sent.append({"labels": labels, "annotations": {"summary": "s", "description": "d", "dashboard_url": "u"}})
        self.ask("/api/v2/alerts", sent)

    def clear(self) -> None:
        """Resolve every alert."""
        over = datetime.now(UTC).isoformat()
        self.ask("/api/v2/alerts", [{"labels": each["labels"], "endsAt": over} for each in self._firing()])
        wait(lambda: not self._firing(), 5)

    def _firing(self) -> list[dict[str, Any]]:
        return list(self.ask("/api/v2/alerts"))

    def quiet(self) -> set[str]:
        """Return the inhibited alerts, in the notation of :meth:`fire`."""
        return self._named(lambda alert: bool(alert["status"]["inhibitedBy"]))

    def loud(self) -> set[str]:
        """Return the notified alerts."""
        return self._named(lambda alert: not alert["status"]["inhibitedBy"])

    def _named(self, wanted: Any) -> set[str]:
        found = set()
        for alert in self._firing():
            labels = alert["labels"]
            several = len([key for key in BY_NAME if key[0] == labels["alertname"]]) > 1
            text = labels["alertname"] + (f"/{labels['severity']}" if several else "")
            if labels.get("host", "a") != "a":
                text += f"@{labels['host']}"
            if wanted(alert):
                found.add(text)
        return found


def with_templates() -> list[str]:
    """Return a command prefix that mounts Debian's templates at Alertmanager's path, for its process alone."""
    if TEMPLATES.is_dir():
        return []
    program = promtools.find("prometheus-alertmanager", print)
    script = (
        'kept=$(mktemp -d); cp "$1"/*.tmpl "$kept"; mount -t tmpfs none /usr/share; '
        'mkdir -p "$2"; cp "$kept"/*.tmpl "$2"; rm -r "$kept"; shift 2; exec "$@"'
    )
    folders = [str(program.parents[2] / TEMPLATES.relative_to("/")), str(TEMPLATES)]
    return ["unshare", "--map-root-user", "--mount", "sh", "-ec", script, "sh", *folders]


def unable() -> str | None:
    """Return why Alertmanager cannot run here, None if it can."""
    try:
        promtools.find("prometheus-alertmanager", print)
    except promtools.Unavailable as error:
        return str(error)
    tried = subprocess.run([*with_templates(), "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no mount of one's own: {tried.stderr.strip()}"


@contextmanager
def started(folder: Path, **given: Any) -> Iterator[Alertmanager]:
    """Run Alertmanager with the configuration that follows from the role's variables."""
    reason = unable()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the tests of Alertmanager, and cannot: {reason}")
        pytest.skip(reason)
    port = free_port()
    running = Alertmanager(port, folder)
    running.configure(**given)
    with running.log.open("wb") as log:
        process = subprocess.Popen(
            [
                *with_templates(),
                promtools.find("prometheus-alertmanager", print),
                f"--config.file={folder}/alertmanager.yml",
                f"--storage.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait(lambda: _ready(running) or process.poll() is not None, 30)
            assert process.poll() is None, running.log.read_text()
            yield running
        finally:
            process.terminate()
            process.wait(timeout=20)


def _ready(running: Alertmanager) -> bool:
    try:
        running.ask("/-/ready")
    except httpx.HTTPError:
        return False
    return True


def wait(condition: Any, seconds: float) -> None:
    until(condition, seconds, "Alertmanager did it")
