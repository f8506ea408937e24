"""The monitoring host's report in status --full, top and doctor, and silences."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sessions
from rich.console import Console
from sessions import FakeRemote

from streampulse.core.errors import OperatorError, UsageError
from streampulse.host.slo.report import Firing, Promise, Report, Target
from streampulse_ops.cli.console import Screen
from streampulse_ops.cli.ending import Terminated
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command, monitoring
from streampulse_ops.verbs import doctor, silence, status, top

Said = tuple[int, str, str]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(status, "collect", lambda _session: [row()])
    return sessions.session(tmp_path, running=True, a="kafka monitoring")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[Said], list[list[str]]]:
    """Have the watching host answer, and return what it is asked."""

    def say(said: Said) -> list[list[str]]:
        asked: list[list[str]] = []

        class Connection(FakeRemote):
            def run(self, words: list[str], **_more: object) -> Said:
                asked.append(list(words[1:]))
                return said

        monkeypatch.setattr(command, "Remote", Connection)
        return asked

    return say


Host_ = Callable[[Said], list[list[str]]]


def row(state: str = "active (running)") -> status.Row:
    return status.Row("kafka", "a", state, "2026-01-31 12:00:00 UTC", 300, "4.3.1")


def alert(**more: Any) -> Firing:
    usual: dict[str, Any] = {
        "name": "KafkaDown", "severity": "page", "service": "kafka", "host": "a", "slo": "", "since": 40.0,
        "summary": "Kafka is away", "runbook": "http://p/user/runbooks/no-such-page.html", "silenced": False,
        "inhibited": False,
    }  # fmt: skip
    return Firing(**{**usual, **more})


def report(alerts: Sequence[Firing] = (), targets: Sequence[Target] = (), problems: Sequence[str] = ()) -> Report:
    promise = Promise("freshness", 0.95, {"5m": 0.5, "1h": 0.99, "1d": None, "30d": 1.0}, -0.25)
    figures: dict[str, float | None] = {
        "lag_seconds": 0.25,
        "lag_records": 12345.0,
        "end_to_end_seconds": 60.0,
        "requests_per_second": 1.25,
    }
    return Report(100.0, [promise], list(alerts), figures, list(targets), list(problems))


def answer(found: Report | None) -> Said:
    return 0, json.dumps(found.document() if found else None), ""


def test_everything_at_a_glance(session: Session, host: Host_, capsys: pytest.CaptureFixture[str]) -> None:
    up, down = (Target("kafka", each, "i", each == "a", "refused" * (each != "a")) for each in ("a", "b"))
    host(answer(report([alert(severity="ticket"), alert(name="Quiet", silenced=True)], [down, up], ["no: inv logs x"])))
    status.show_full(session, [row()], as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "kafka active (running)",
        "freshness 50.0 % 99.00 % no data 100 % 95 % -25.0 %",
        "KafkaDown (a) ticket 1 min 0 s Kafka is away",
        "Quiet (a) silenced",
        "lag 12,345 records, the oldest 250 ms old; last commit ? s ago",
        "newest event never became visible",
        "1.2 requests/s",
        "targets 1 of 2 up",
        "kafka on b is down: refused",
        "not known: no: inv logs x --env demo",
    ):
        assert words in said, words


def test_an_active_page_is_exit_1(session: Session, host: Host_) -> None:
    host(answer(report([alert(), alert(name="Follows", inhibited=True), alert(name="T", severity="ticket")])))
    with pytest.raises(OperatorError) as caught:
        status.show_full(session, [row("failed (failed)")], as_json=False)
    assert "not running: kafka on a" in str(caught.value)
    assert "firing: KafkaDown (a). Why: inv doctor --env demo" in str(caught.value)


def test_the_same_as_json(session: Session, host: Host_, capsys: pytest.CaptureFixture[str]) -> None:
    host(answer(report()))
    status.show_full(session, [row()], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["services"][0]["service"] == "kafka"
    assert Report.read(found["monitoring"]) == report()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (answer(None), "demo has no monitoring: inv up --full --env demo"),
        (
            (1, "", "streampulse: prometheus does not answer at x (no): inv logs prometheus; inv up --full\n"),
            "logs prom",
        ),
        ((127, "", ""), "streampulse is not installed on a: inv up --full --env demo"),
        ((2, "", "usage\nstreampulse: error: argument COMMAND: invalid choice: 'slo'"), "a has an older release"),
        ((0, "what?", ""), r"a does not answer as it should \(what\?\)"),
        ((0, "{}", ""), "another release"),
    ],
)
def test_a_missing_report_is_explained_after_the_table(
    session: Session, host: Host_, capsys: pytest.CaptureFixture[str], said: Said, why: str
) -> None:
    host(said)
    with pytest.raises(OperatorError, match=why) as caught:
        status.show_full(session, [row()], as_json=False)
    assert "\n" not in str(caught.value)
    assert "--env demo" in str(caught.value) or "another release" in why
    assert "kafka" in capsys.readouterr().out


def test_an_environment_without_a_monitoring_host(tmp_path: Path) -> None:
    alone = sessions.session(tmp_path, a="kafka")
    with pytest.raises(OperatorError, match="demo has no host in group monitoring: add one to"):
        monitoring.require(alone)
    assert list(doctor.monitoring_is_content(alone)) == []


# top ------------------------------------------------------------------------------------------------------------------


def test_without_a_terminal_top_is_one_look(session: Session, host: Host_, capsys: pytest.CaptureFixture[str]) -> None:
    asked = host(answer(report([alert()])))
    top.show(session, every=5, once=False)
    said = capsys.readouterr().out
    assert asked == [["slo", "--json"]]
    assert said.index("freshness") < said.index("KafkaDown") < said.index("active (running)")


@pytest.mark.parametrize("said", [answer(None), (127, "", "")])
def test_top_shows_the_services_without_monitoring(
    session: Session, host: Host_, capsys: pytest.CaptureFixture[str], said: Said
) -> None:
    host(said)
    top.show(session, every=5, once=True)
    shown = capsys.readouterr().out
    assert "inv up --full --env demo" in shown
    assert "active (running)" in shown


def test_top_on_a_terminal_goes_on_until_it_is_ended(
    tmp_path: Path, host: Host_, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, width=120, height=40)
    session = sessions.session(tmp_path, Screen(console), running=True, a="kafka monitoring")
    monkeypatch.setattr(status, "collect", lambda _session: [row()])
    asked = host(answer(report()))
    monkeypatch.setattr(top, "_connection", lambda *_which: None)

    def sleep(seconds: float) -> None:
        assert seconds == 7
        if len(asked) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    top.show(session, every=7, once=False)
    assert len(asked) == 3
    assert page.getvalue().count("active (running)") == 4  # the last one stays

    def end(_seconds: float) -> None:
        raise Terminated(15)

    monkeypatch.setattr("time.sleep", end)
    with pytest.raises(Terminated):
        top.show(session, every=7, once=False)


# doctor ---------------------------------------------------------------------------------------------------------------


def test_targets_that_are_down_and_alerts_that_fire_are_faults(session: Session, host: Host_) -> None:
    targets = [Target("kafka", "b", "10.0.0.2:9404", up=False, error="refused"), Target("api", "a", "i", True, "")]
    alerts = [
        alert(),
        alert(name="ApiDown", service="api", runbook="http://p/user/runbooks/api-down.html"),
        alert(name="DiskAlmostFull", service="host"),
        alert(name="LatencyBudgetBurning", service="slo", host="", slo="latency", summary=""),
        alert(name="Quiet", silenced=True),
        alert(name="Follows", inhibited=True),
    ]
    host(answer(report(alerts, targets, ["Watchdog is missing: inv logs prometheus"])))
    found = list(doctor.monitoring_is_content(session))
    faults = {finding.where: finding for finding in found if not finding.ok}
    assert set(faults) == {
        "a", "kafka on b", "KafkaDown (a)", "ApiDown (a)", "DiskAlmostFull (a)", "LatencyBudgetBurning",
    }  # fmt: skip
    assert faults["a"].cause == "Watchdog is missing"
    assert faults["a"].fix == "inv logs prometheus --env demo"
    assert faults["kafka on b"].cause == "Prometheus cannot read 10.0.0.2:9404: refused"
    assert faults["kafka on b"].fix == "inv logs kafka --env demo; inv up --full --env demo"
    assert faults["KafkaDown (a)"].cause == "Kafka is away"
    assert faults["KafkaDown (a)"].fix == "inv logs kafka --env demo"
    assert faults["KafkaDown (a)"].runbook.startswith("http://p/")
    assert faults["ApiDown (a)"].runbook == "docs/runbooks/api-down.md"
    assert faults["DiskAlmostFull (a)"].fix.startswith("inv ssh a --env demo")
    assert faults["LatencyBudgetBurning"].fix.startswith("inv status --full --env demo")
    assert all(finding.fix and finding.cause for finding in faults.values())
    assert {finding.where for finding in found if finding.ok} == {
        "api on a", "Quiet (a): silenced", "Follows (a): follows from another one",
    }  # fmt: skip


def test_missing_monitoring_is_no_fault_and_a_silent_one_is(
    session: Session, host: Host_, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(answer(None))
    assert list(doctor.monitoring_is_content(session)) == []
    host((1, "", "streampulse: prometheus does not answer at x (refused): inv logs prometheus; inv up --full"))
    (finding,) = doctor.monitoring_is_content(session)
    assert not finding.ok
    assert "prometheus does not answer at x (refused)" in finding.cause
    assert finding.fix == "inv up --full --env demo"
    monkeypatch.setattr(session.provider, "running", lambda _host: False)
    assert list(doctor.monitoring_is_content(session)) == []


# silence --------------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"duration": "1h30m", "reason": " new\ndisks ", "host": "a"}


def test_a_silence_has_its_author(
    session: Session, host: Host_, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    monkeypatch.setattr("socket.gethostname", lambda: "desk")
    made = {
        "identity": "0123-4", "about": "host a", "state": "active", "begins": 0, "ends": 5400, "author": "anna@desk",
        "reason": "new disks",
    }  # fmt: skip
    asked = host((0, json.dumps({"made": made, "firing": [], "dry_run": False}), ""))
    silence.run(session, silence.Wish(**GOOD), as_json=False)
    assert asked == [
        ["silence", "--for", "5400s", "--reason", "new disks", "--author", "anna@desk", "--host", "a", "--json"]
    ]
    assert "0123 is silent about host a until 1970-01-01 01:30 UTC (new disks, anna@desk)" in capsys.readouterr().out


STANDING = {
    "identity": "01234567-8", "about": "host a", "state": "active", "begins": 0, "ends": 5400, "author": "anna",
    "reason": "disks",
}  # fmt: skip


Pair = Callable[..., tuple[Session, list[tuple[str, list[str]]]]]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Have two hosts notify, each with silences of its own; return the session and what changes were asked for."""

    def say(**kept: list[dict[str, Any]]) -> tuple[Session, list[tuple[str, list[str]]]]:
        asked: list[tuple[str, list[str]]] = []

        def answered(_session: Session, host: Host, words: list[str], **_more: object) -> Said:
            if "--expire" in words:
                asked.append((host.name, words))
                (one,) = [each for each in kept[host.name] if each["identity"] == words[words.index("--expire") + 1]]
                return 0, json.dumps({"ended": {**one, "state": "expired"}}), ""
            if "--for" in words:
                asked.append((host.name, words))
                made = {**STANDING, "identity": f"{host.name}{host.name}-0"}
                return 0, json.dumps({"made": made, "firing": [], "dry_run": False}), ""
            return 0, json.dumps({"silences": kept[host.name]}), ""

        monkeypatch.setattr(command, "run", answered)
        return sessions.session(tmp_path, **dict.fromkeys(kept, "monitoring")), asked  # type: ignore[arg-type]

    return say


def test_every_host_that_notifies_is_silenced(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    session, asked = pair(a=[], b=[])
    silence.run(session, silence.Wish("30m", "disks", host="a"), as_json=False)
    assert [name for name, _ in asked] == ["a", "b"]
    assert capsys.readouterr().out.count("is silent about") == 1


def test_silences_made_together_end_together(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    twin = {**STANDING, "identity": "89abcdef-0", "ends": 5401}
    later = {**STANDING, "identity": "ffffffff-0", "ends": 9000}
    session, asked = pair(a=[STANDING, {**later, "identity": "eeeeeeee-0"}], b=[twin, later])
    silence.run(session, silence.Wish(expire="0123"), as_json=False)
    assert [(name, words[2]) for name, words in asked] == [("a", "01234567-8"), ("b", "89abcdef-0")]
    assert "01234567 is ended: host a" in capsys.readouterr().out
    with pytest.raises(OperatorError, match=r"dddd is not a silence that stands.*See: inv silence --env demo"):
        silence.run(session, silence.Wish(expire="dddd"), as_json=False)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({**GOOD, "duration": "5x"}, "not a duration"),
        ({**GOOD, "duration": ""}, "how long"),
        ({**GOOD, "reason": ""}, "why"),
        ({**GOOD, "host": ""}, "silent about what"),
        ({**GOOD, "everything": True}, "which of the two"),
        ({**GOOD, "alert": "KafkaDwn"}, r"KafkaDwn is not an alert\. Did you mean KafkaDown\?"),
        ({**GOOD, "alert": "Watchdog"}, "alarms when it is silent"),
        ({**GOOD, "service": "kafak"}, r"kafak is not a service\. Did you mean kafka\?"),
        ({**GOOD, "expire": "0123"}, "leave the other options out"),
        ({"expire": ""}, "--expire names no silence"),
        ({"dry_run": True}, "--dry-run of what"),
    ],
)
def test_wrong_usage_is_refused_before_anybody_is_asked(
    session: Session, host: Host_, wish: dict[str, Any], said: str
) -> None:
    asked = host(answer(None))
    with pytest.raises(UsageError, match=said):
        silence.run(session, silence.Wish(**wish), as_json=False)
    assert asked == []


def test_a_host_of_another_environment_is_no_wrong_usage(session: Session, host: Host_) -> None:
    asked = host(answer(None))
    with pytest.raises(OperatorError, match=r"q is not a host of demo\. There are: a") as error:
        silence.run(session, silence.Wish(**{**GOOD, "host": "q"}), as_json=False)
    assert not isinstance(error.value, UsageError)
    assert asked == []


@pytest.mark.parametrize(
    ("said", "kind", "why"),
    [
        (
            (1, "", "streampulse: ff is not a silence that stands. See: inv silence\n"),
            OperatorError,
            "inv silence --env",
        ),
        ((2, "", "streampulse: why?\n"), UsageError, "why"),
        ((0, "[]", ""), OperatorError, "does not answer as it should"),
    ],
)
def test_a_refusal_by_the_host(session: Session, host: Host_, said: Said, kind: type[OperatorError], why: str) -> None:
    host(said)
    with pytest.raises(OperatorError, match=why) as caught:
        silence.run(session, silence.Wish(**GOOD), as_json=False)
    assert type(caught.value) is kind


def test_hosts_that_differ_are_told_apart(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    session, _ = pair(a=[STANDING], b=[])
    silence.run(session, silence.Wish(), as_json=False)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["a:", "b:"]
