"""``inv alert test`` and the messages about deploys, through a real Alertmanager to real receivers."""

import base64
import io
import json
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sessions
from alertmanager import Alertmanager, Told, receiving, started, wait
from rich.console import Console

from streampulse.core.errors import IncompleteError, OperatorError, UsageError
from streampulse.host import cli
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command
from streampulse_ops.monitoring import receivers
from streampulse_ops.verbs import alert

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Mail(socketserver.ThreadingTCPServer):
    """An SMTP server that keeps the log-ins and the messages."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.logins: set[str] = set()
        self.messages: list[str] = []


class _MailHandler(socketserver.StreamRequestHandler):
    server: Mail

    def handle(self) -> None:
        self.say("220 mail")
        for raw in self.rfile:
            words = raw.decode().split()
            verb = words[0].upper()
            if verb == "EHLO":
                self.say("250-mail")
                self.say("250 AUTH PLAIN")
            elif verb == "AUTH":
                self.server.logins.add(base64.b64decode(words[2]).decode().split("\0")[2])
                self.say("235 welcome")
            elif verb == "DATA":
                self.say("354 go on")
                lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                self.server.messages.append("\n".join(lines))
                self.say("250 kept")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def mail() -> Iterator[Mail]:
    with Mail() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def told() -> Iterator[Told]:
    with receiving() as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    with started(tmp_path_factory.mktemp("alertmanager")) as running:
        yield running


@pytest.fixture
def session(
    tmp_path: Path, running: Alertmanager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Session:
    """Return a session whose monitoring host is this process, with Alertmanager's log as its journal."""
    running.clear()
    for name in ("PROMETHEUS", "ALERTMANAGER"):
        monkeypatch.setenv(f"STREAMPULSE_MONITORING_{name}_URL", running.url)
    journal = tmp_path / "journalctl"
    journal.write_text(f"#!/bin/sh\ntail -n 20 {running.log}\n")
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def run(_session: Session, _host: Host, words: Sequence[str], **_more: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(words)
        return code, *capsys.readouterr()

    monkeypatch.setattr(command, "run", run)
    return sessions.session(tmp_path, Screen(Console(file=io.StringIO(), width=1000)), m="monitoring")


def printed(session: Session) -> str:
    file = session.screen.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def interval(days: int = 0) -> list[dict[str, Any]]:
    """Return an interval of the whole day, so many days after today."""
    there = datetime.now(UTC) + timedelta(days=days)
    return [{"weekdays": [DAYS[there.weekday()]], "location": "UTC"}]


def every_receiver(told: Told, mail: Mail, folder: Path) -> dict[str, Any]:
    """Return the role's variables for a receiver of each kind, and write their keys."""
    keys = {"slack": f"{told.url}/slack", "smtp": "mail password", "page-pagerduty": "pager key"}
    for name, key in {**keys, "page-opsgenie": "genie key", "info-slack": f"{told.url}/deploys"}.items():
        (folder / f"alertmanager-{name}").write_text(key)
    pager = {"pagerduty_key": "in a file", "pagerduty_url": f"{told.url}/pagerduty"}
    return {
        "alertmanager_webhook_url": f"{told.url}/hook",
        "alertmanager_slack_url": "in a file",
        "alertmanager_email": {
            "from": "streampulse@example.org",
            "to": "ops@example.org",
            "smarthost": f"127.0.0.1:{mail.server_address[1]}",
            "username": "ops",
            "password": "in a file",
            "require_tls": False,
        },
        "alertmanager_receivers": {
            "page": {**pager, "opsgenie_key": "in a file", "opsgenie_url": told.url},
            "info": {"slack_url": "in a file"},
        },
    }


def test_a_page_reaches_every_kind_of_receiver_and_so_does_its_end(
    session: Session, running: Alertmanager, told: Told, mail: Mail
) -> None:
    running.reload(**every_receiver(told, mail, running.folder))
    assert alert.test(session, "page", dry_run=True) == "nothing was sent"
    assert not told.bodies
    assert alert.test(session, "page", dry_run=False) == "the receivers of page answer"
    assert "m: email, opsgenie, pagerduty, slack, webhook took the page after " in printed(session)
    assert told.names("/hook") == told.names("/hook", "resolved") == {"AlertTest"}
    by_path = {path: [body for where, body in told.bodies if where == path] for path, _ in told.bodies}
    assert [each["attachments"][0]["color"] for each in by_path["/slack"]] == ["danger", "good"]
    assert [(each["routing_key"], each["event_action"]) for each in by_path["/pagerduty"]] == [
        ("pager key", "trigger"), ("pager key", "resolve"),
    ]  # fmt: skip
    assert by_path["/pagerduty"][0]["payload"]["severity"] == "critical"
    assert by_path["/v2/alerts"][0]["priority"] == "P1"
    assert mail.logins == {"mail password"}
    assert [next(line for line in text.splitlines() if line.startswith("Subject")) for text in mail.messages] == [
        f"Subject: =?utf-8?q?{status}:_Test_of_the_receivers_of_page_=C2=B7_demo?=" for status in ("page", "over")
    ]


def test_a_ticket_is_sent_in_working_hours_and_waits_outside(
    session: Session, running: Alertmanager, told: Told
) -> None:
    given = {"alertmanager_webhook_url": f"{told.url}/hook"}
    running.reload(**given, alertmanager_working_hours=interval())
    assert alert.test(session, "ticket", dry_run=False) == "the receivers of ticket answer"
    assert told.names("/hook") == told.names("/hook", "resolved") == {"AlertTest"}
    told.bodies.clear()
    running.reload(**given, alertmanager_working_hours=interval(days=3))
    assert alert.test(session, "ticket", dry_run=False) == "a ticket waits now: it is outside working hours"
    assert alert.test(session, "page", dry_run=False) == "the receivers of page answer"
    # The ticket would have arrived before the page.
    assert {body["commonLabels"]["severity"] for _, body in told.bodies} == {"page"}
    assert "m: Alertmanager keeps the ticket, because it is outside working hours: webhook" in printed(session)


def test_pages_and_tickets_wait_in_a_maintenance_window_and_info_does_not(
    session: Session, running: Alertmanager, told: Told
) -> None:
    running.reload(
        alertmanager_webhook_url=f"{told.url}/hook",
        alertmanager_receivers={"info": {"webhook_url": f"{told.url}/deploys"}},
        alertmanager_maintenance=interval(),
    )
    for severity in ("page", "ticket"):
        words = alert.test(session, severity, dry_run=False)
        assert words == f"a {severity} waits now: it is in a maintenance window"
    assert alert.test(session, "info", dry_run=False) == "the receivers of info answer"
    assert {path for path, _ in told.bodies} == {"/deploys"}


def test_a_ticket_that_waited_is_sent_when_the_working_hours_begin(running: Alertmanager, told: Told) -> None:
    begins = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    hours = [{"times": [{"start_time": f"{begins:%H:%M}", "end_time": "24:00"}]}]
    if begins.hour == begins.minute == 0:
        pytest.skip("midnight")
    running.clear()
    running.reload(alertmanager_webhook_url=f"{told.url}/hook", alertmanager_working_hours=hours)
    labels = {"alertname": "AlertTest", "severity": "ticket"}
    configuration = running.ask("/api/v2/status")["config"]["original"]
    running.ask(
        "/api/v2/alerts", [{"labels": labels, "endsAt": (datetime.now(UTC) + timedelta(minutes=5)).isoformat()}]
    )
    while datetime.now(UTC) < begins - timedelta(seconds=1):
        assert receivers.way(configuration, "ticket", datetime.now(UTC)).waits == "outside working hours"
        assert not told.bodies
        time.sleep(0.5)
    wait(lambda: told.names("/hook") == {"AlertTest"}, 10)
    assert receivers.way(configuration, "ticket", datetime.now(UTC)).waits == ""
    running.clear()
    wait(lambda: told.names("/hook", "resolved") == {"AlertTest"}, 10)


@pytest.mark.parametrize(("status", "cause"), [(404, "unexpected status code 404"), (503, "status code 503")])
def test_a_receiver_that_refuses_is_named_with_its_answer(
    session: Session, running: Alertmanager, told: Told, status: int, cause: str
) -> None:
    told.answers["/pager"] = status
    running.reload(
        alertmanager_receivers={"page": {"webhook_url": f"{told.url}/pager"}, "ticket": {"webhook_url": told.url}}
    )
    with pytest.raises(OperatorError, match=f"^m: webhook did not take the alert: .*{cause}.*inv logs alertmanager"):
        alert.test(session, "page", dry_run=False)
    assert alert.test(session, "ticket", dry_run=False) == "the receivers of ticket answer"


def test_a_suppressed_test_and_a_missing_receiver_are_faults(
    session: Session, running: Alertmanager, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    running.reload(alertmanager_webhook_url=f"{told.url}/hook")
    assert cli.main(["silence", "--for", "10m", "--reason", "r", "--all", "--json"]) == 0
    identity = json.loads(capsys.readouterr().out)["made"]["identity"]
    with pytest.raises(OperatorError, match=f"a silence suppresses the test: inv silence --expire {identity[:8]}"):
        alert.test(session, "page", dry_run=False)
    assert cli.main(["silence", "--expire", identity]) == 0
    with pytest.raises(OperatorError, match="no receiver is set for info: set alertmanager_receivers"):
        alert.test(session, "info", dry_run=False)
    with pytest.raises(UsageError, match="There are: page, ticket, info"):
        alert.test(session, "pager", dry_run=False)


def test_an_alertmanager_that_does_not_answer_was_not_tried(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPULSE_MONITORING_ALERTMANAGER_URL", "http://127.0.0.1:9")
    with pytest.raises(IncompleteError, match="alertmanager does not answer") as caught:
        alert.test(session, "page", dry_run=False)
    assert caught.value.done == "no receiver was tried"


def test_each_deploy_is_told_once_where_somebody_asked_for_it(
    session: Session, running: Alertmanager, told: Told
) -> None:
    running.reload(alertmanager_webhook_url=f"{told.url}/hook")
    alert.inform(session, "Deployed", "0.2.0 was deployed", "0.2.0")
    running.reload(alertmanager_receivers={"info": {"webhook_url": f"{told.url}/deploys"}})
    for release in ("0.2.1", "0.2.2"):
        alert.inform(session, "Deployed", f"{release} was deployed", release)
    wait(lambda: len(told.bodies) == 2, 10)
    assert sorted(body["commonAnnotations"]["summary"] for _, body in told.bodies) == [
        "0.2.1 was deployed", "0.2.2 was deployed",
    ]  # fmt: skip
    assert {path for path, _ in told.bodies} == {"/deploys"}
    assert printed(session) == ""
