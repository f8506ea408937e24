"""doctor and status: an unreachable host is a finding and hides no other host."""

import json
import re
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sessions
from http_server import serving
from sessions import FakeRemote

from streampulse.core.errors import IncompleteError, OperatorError, UsageError
from streampulse_ops import paths
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import links, reach, ssh
from streampulse_ops.monitoring import findings
from streampulse_ops.monitoring.findings import Finding
from streampulse_ops.releases import history
from streampulse_ops.verbs import doctor, mutes, status

FOUND = [
    {"check": "units.kafka", "ok": True, "seen": "active", "cause": "", "fix": "", "code": ""},
    {"check": "disk", "ok": False, "seen": "", "cause": "it is full", "fix": "inv logs kafka; inv up",
     "code": "SP-HOST-003"},
]  # fmt: skip


class Hosts(FakeRemote):
    """One of two hosts does not answer. ``ahead``: seconds by which a host's clock is ahead."""

    ahead: ClassVar[dict[str, float]] = {}

    def run(self, words: list[str], **_more: Any) -> tuple[int, str, str]:
        if self.host.name == "bad":
            raise OperatorError("bad cannot be reached over SSH: no route")
        if words[0] == "date":
            return 0, f"{time.time() + Hosts.ahead.get(self.host.name, 0.0)}\n", ""
        if "check" in words:
            return 1, json.dumps({"findings": FOUND}), ""
        return 0, "== kafka.service\nActiveState=active\nSubState=running\nVersion=4\n", ""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for module in (doctor, status):
        monkeypatch.setattr(module, "Remote", Hosts)
    return sessions.session(tmp_path, running=True, bad="kafka", good="kafka")


def test_a_host_that_only_watches_is_asked_where_it_has_been_set_up(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sessions.session(tmp_path, running=True, watcher="monitoring")

    def nothing(_self: Hosts, words: list[str], **_more: Any) -> tuple[int, str, str]:
        return (127, "", "sh: 1: /usr/local/bin/streampulse: not found") if "check" in words else (0, "", "")

    assert [finding.where for finding in doctor.hosts_find_nothing(session) if not finding.ok] == ["watcher"]
    monkeypatch.setattr(Hosts, "run", nothing)
    assert list(doctor.hosts_find_nothing(session)) == []
    assert status.collect(session) == []


def test_status_shows_the_hosts_that_answer(session: Session) -> None:
    rows = status.collect(session)
    assert [(row.host, row.state) for row in rows] == [("bad", status.UNKNOWN), ("good", "active (running)")]
    assert [row.healthy for row in rows] == [False, True]
    with pytest.raises(OperatorError, match=r"kafka on bad\. bad cannot be reached over SSH: no route\. Why"):
        status.show(session, rows, as_json=True)


def test_doctor_examines_the_other_hosts_too(session: Session) -> None:
    findings = doctor.examine(session)
    assert Finding("service", "kafka on good: 4", ok=True) in findings
    faults = [finding for finding in findings if not finding.ok]
    assert [(fault.code, fault.where) for fault in faults] == [("SP-CHECK-004", "bad"), ("SP-HOST-003", "good")]
    assert faults[0].cause == "bad cannot be reached over SSH: no route"
    # Each fix is a command line, with the environment that the host itself does not know.
    assert [fault.fix for fault in faults] == ["inv up --env demo", "inv logs kafka --env demo; inv up --env demo"]


def test_what_two_hosts_say_in_the_same_words_is_one_fault(session: Session) -> None:
    session = sessions.session(session.environment.folder, running=True, first="kafka", second="kafka")
    faults = [finding for finding in doctor.hosts_find_nothing(session) if not finding.ok]
    assert [(fault.code, fault.where) for fault in faults] == [("SP-HOST-003", "first, second")]


def test_a_refused_login_is_one_fault_with_its_own_fix(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"hostname": "192.0.2.1", "user": "eve", "port": "22"}

    def reached(environment: Environment, host: Host) -> None:
        if host.name == "bad":
            raise reach.explain(environment, "bad", settings, "eve@192.0.2.1: Permission denied (publickey).\n")

    monkeypatch.setattr(ssh, "reached", reached)
    monkeypatch.setattr(links, "only_there", lambda _environment: False)
    session = sessions.session(session.environment.folder, bad="kafka api monitoring", good="kafka")
    found = [finding for finding in doctor.examine(session) if not finding.ok]
    assert [(fault.code, fault.where) for fault in found] == [("SP-CHECK-004", "bad"), ("SP-HOST-003", "good")]
    assert found[0].cause == "bad (192.0.2.1) refuses to log in eve"
    assert found[0].fix.startswith("set ansible_user and ansible_ssh_private_key_file in ")
    states = {(row.host, row.state) for row in status.collect(session)}
    assert states == {("bad", "login is refused"), ("good", "active (running)")}


@pytest.mark.parametrize(("ahead", "ok"), [(1.0, True), (5.0, False), (-5.0, False)])
@pytest.mark.usefixtures("session")
def test_clocks_are_compared_with_a_brokers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float, ok: bool
) -> None:
    monkeypatch.setattr(Hosts, "ahead", {"good": 60.0, "database": 60.0 + ahead})
    (finding,) = doctor.clocks_agree(
        sessions.session(tmp_path, running=True, bad="kafka", good="kafka", database="postgres")
    )
    assert (finding.ok, finding.where.startswith("database")) == (ok, True)
    assert ok or finding.cause.startswith("its clock and that of the Kafka host good are 5.0 s apart")


def test_the_api_of_a_machine_that_is_down_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "only_there", lambda _environment: False)
    assert list(doctor.api_answers(sessions.session(tmp_path, running=False, a="api"))) == []


def test_a_check_that_cannot_be_run_is_a_finding(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_session: Session) -> Any:
        raise OperatorError("the inventory has no such port")

    monkeypatch.setattr(doctor, "CHECKS", (fails,))
    assert doctor.examine(session) == [
        doctor.fault("SP-CHECK-006", "fails", "demo", "the inventory has no such port", "inv up --env demo")
    ]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, {"ok": True}, ""),
        (200, {"ok": False}, "it says that it is not well"),
        (503, {"ok": False, "error": "PostgreSQL is away since noon"}, "it answers 503: PostgreSQL is away since noon"),
        (500, "<html>", "it answers 500: Internal Server Error"),
        # It is well, and says so to others.
        (403, {"error": "only for private networks"}, ""),
    ],
)
def test_doctor_reports_the_apis_own_health(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, body: Any, why: str
) -> None:
    with serving(lambda _request: (status, body)) as url:
        finding = api_finding(monkeypatch, tmp_path, url)
    assert (finding.ok, finding.cause) == (not why, why)
    assert finding.fix == ("inv logs api --env demo" if why else "")


def test_an_api_that_does_not_answer_is_behind_a_firewall_or_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cause = api_finding(monkeypatch, tmp_path, "http://127.0.0.1:1").cause
    assert cause.startswith("no answer (")
    assert "a firewall" in cause


def api_finding(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str) -> Finding:
    monkeypatch.setattr(links, "only_there", lambda _environment: False)
    monkeypatch.setattr(links, "address", lambda *_which: f"{url}/")
    (finding,) = doctor.api_answers(sessions.session(folder, running=True, a="api"))
    return finding


def test_faults_are_shown_causes_first_and_json_is_as_its_schema_says(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        doctor.fault("SP-JOB-001", "job.progress", "a", "9 records wait", "inv logs job"),
        doctor.fault("SP-HOST-003", "disk", "a", "it is full", "du"),
        Finding("memory", "a: enough", ok=True),
    ]
    with pytest.raises(OperatorError, match="2 of 3 checks found a fault"):
        doctor.show(session.screen, found, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  page    SP-HOST-003  disk  a: it is full"
    assert lines[1].startswith("      why it matters: Kafka and PostgreSQL end")
    assert lines[3] == "      runbook: docs/runbooks/disk-almost-full.md"
    with pytest.raises(OperatorError):
        doctor.show(session.screen, found, as_json=True)
    shown = findings.from_json(capsys.readouterr().out)
    assert [(each.code, each.severity) for each in shown] == [("", ""), ("SP-HOST-003", "page"), ("SP-JOB-001", "page")]


def test_what_doctor_could_not_look_at_is_no_fault(session: Session) -> None:
    unknown = doctor.fault("SP-CHECK-004", "host", "bad", "no route", "inv up")
    with pytest.raises(IncompleteError, match="could not look at bad"):
        doctor.show(session.screen, [unknown], as_json=False)


def test_a_muted_code_is_shown_and_is_no_fault_until_its_time(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session.environment.state.mkdir(parents=True)
    assert mutes.mute(session, "SP-HOST-003", "7d", "new disks on Monday").startswith("SP-HOST-003 is muted until ")
    full = [doctor.fault("SP-HOST-003", "disk", "a", "it is full", "du")]
    assert doctor.show(session.screen, mutes.applied(session, full), as_json=False) == "1 checks, no fault, 1 muted"
    assert "new disks on Monday" in capsys.readouterr().out
    later = time.time() + 7 * 86_400 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert mutes.applied(session, full) == full


@pytest.mark.parametrize(
    ("code", "duration", "reason", "says"),
    [
        ("", "7d", "r", "mute which code"),
        ("SP-HOST-999", "7d", "r", "is not a code of doctor"),
        ("SP-HOST-003", "", "r", "how long"),
        ("SP-HOST-003", "7d", "", "why"),
    ],
)
def test_muting_needs_a_code_a_time_and_a_reason(
    session: Session, code: str, duration: str, reason: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        mutes.mute(session, code, duration, reason)


def test_hosts_of_different_releases_are_a_finding(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        status.Row("kafka", "a", "active (running)", "", 0, "4.1"),
        status.Row("kafka", "b", "active (running)", "", 0, "4.0"),
        # A package's version follows from the distribution.
        status.Row("node-exporter", "a", "active (running)", "", 0, "1.9"),
        status.Row("node-exporter", "b", "active (running)", "", 0, "1.5"),
        status.Row("api", "b", "not installed", "", 0, ""),
    ]
    monkeypatch.setattr(status, "collect", lambda _: rows)
    faults = [each for each in doctor.services_are_installed(session) if not each.ok]
    assert [(each.code, each.where) for each in faults] == [("SP-UNIT-004", "api on b"), ("SP-VERSION-001", "kafka")]


@pytest.mark.parametrize(("event", "ok"), [("good", True), ("back", True), ("begun", False), ("stopped", False)])
def test_a_deploy_that_did_not_end_is_a_finding(
    session: Session, monkeypatch: pytest.MonkeyPatch, event: str, ok: bool
) -> None:
    line = json.dumps({"at": "2026-11-29T10:00:00", "deploy": "d", "event": event, "release": "r1"})
    monkeypatch.setattr(history, "Remote", Hosts)
    monkeypatch.setattr(
        Hosts, "run", lambda *_words, **_more: (0, f"{line}\n=====\n=====\nactive\n=====\nactive\n", "")
    )
    (finding,) = doctor.the_last_deploy_ended(session)
    assert (finding.ok, finding.code) == (ok, "" if ok else "SP-RELEASE-001")
    assert "r1" in finding.where + finding.cause


def test_a_unit_stands_behind_the_services_that_it_needs_and_before_its_own_codes() -> None:
    found = [
        doctor.fault(code, check, "a", "cause", "fix")
        for code, check in (
            ("SP-SPARK-003", "spark.application"),
            ("SP-UNIT-002", "units.job"),
            ("SP-PORT-001", "ports.kafka"),
            ("SP-KAFKA-001", "kafka"),
            ("SP-UNIT-002", "units.postgres"),
            ("SP-HOST-003", "disk"),
        )
    ]
    shown = [each.check for each in findings.explained(found)]
    assert shown == ["disk", "units.postgres", "ports.kafka", "kafka", "units.job", "spark.application"]


def test_every_code_that_is_used_has_one_entry_and_every_entry_is_used() -> None:
    sources = "".join(
        file.read_text(encoding="utf-8")
        for folder in ("src/streampulse/host/check", "src/streampulse_ops/verbs")
        for file in (paths.repository() / folder).glob("*.py")
    )
    used = set(re.findall(r'"(SP-[A-Z]+-[0-9]{3})"', sources))
    assert used == set(findings.codes())
    assert not used & set(findings.retired())
    for code in findings.codes().values():
        assert (paths.repository() / f"docs/runbooks/{code.runbook}.md").is_file()
        assert code.severity in ("page", "ticket", findings.UNKNOWN)
