"""The journals of several hosts as one: the form, the order and the selection of entries."""

import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sessions

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import services
from streampulse_ops.cli.console import Screen
from streampulse_ops.cli.ending import Terminated
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import journal, ssh
from streampulse_ops.hosts.journal import Entry
from streampulse_ops.machines.existing import Existing
from streampulse_ops.verbs import logs
from streampulse_ops.verbs.logs import Wish

LISTED = services.all_services()


def line(at: int, text: Any = "x", unit: str = "kafka.service", **more: Any) -> bytes:
    """Return a line as journalctl prints it; the time is in seconds."""
    return json.dumps(
        {
            "__REALTIME_TIMESTAMP": str(at * 1_000_000),
            "__CURSOR": f"c{at}",
            "MESSAGE": text,
            "PRIORITY": "6",
            "_SYSTEMD_UNIT": unit,
            **more,
        }
    ).encode()


def entry(at: int, host: str = "a") -> Entry:
    return Entry(at, host, "kafka", 6, "x", "c")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (line(0, "hello"), "1970-01-01T00:00:00.000Z a kafka: hello"),
        (line(1, "one\ntwo\n"), "1970-01-01T00:00:01.000Z a kafka: one\n    two"),
        (line(0, [104, 105, 255]), "1970-01-01T00:00:00.000Z a kafka: hi\ufffd"),
        (line(0, ["one", "two"]), "1970-01-01T00:00:00.000Z a kafka: one\n    two"),
        (line(0, None), "1970-01-01T00:00:00.000Z a kafka: "),
        (line(0, "\x1b[2Jgone\x07"), "1970-01-01T00:00:00.000Z a kafka: \\x1b[2Jgone\\x07"),
        (line(0, "up", "init.scope", UNIT="streampulse-job.service"), "1970-01-01T00:00:00.000Z a job: up"),
        (line(0, "p", "postgresql@17-main.service"), "1970-01-01T00:00:00.000Z a postgres: p"),
        (line(0, "s", "cron.service", SYSLOG_IDENTIFIER="CRON"), "1970-01-01T00:00:00.000Z a CRON: s"),
        (line(0, "late") + b"\r\n", "1970-01-01T00:00:00.000Z a kafka: late"),
    ],
)
def test_an_entry_as_it_is_shown(given: bytes, shown: str) -> None:
    found = journal.read(given, "a", LISTED)
    assert found is not None
    assert found.line() == shown


@pytest.mark.parametrize("given", [b"", b"-- No entries --", b"{", b'{"MESSAGE": "x"}', b"[]"])
def test_lines_that_are_no_entries_are_skipped(given: bytes) -> None:
    assert journal.read(given, "a", LISTED) is None


def test_held_entries_are_released_in_the_order_of_time() -> None:
    held = [(10.0, entry(5)), (10.4, entry(3, "b")), (10.4, entry(7, "b"))]
    ready, rest = journal.due(held, now=10.5, window=0.5)
    assert [(each.at, each.host) for each in ready] == [(3, "b"), (5, "a")]
    assert [each.at for _, each in rest] == [7]
    assert journal.due(rest, now=10.5, window=0.5) == ([], rest)
    assert [each.at for each in journal.due(rest, now=10.9, window=0.5)[0]] == [7]


@pytest.mark.parametrize(
    ("since", "said"),
    [
        ("10m", "-10m"),
        ("1h 30min", "-1h 30min"),
        ("today", "today"),
        ("10 min ago", "10 min ago"),
        ("09:30", "09:30"),
        ("2026-01-31T12:00:00.123Z", "2026-01-31 12:00:00.123 UTC"),
    ],
)
def test_a_length_of_time_is_meant_as_that_long_ago(since: str, said: str) -> None:
    assert Wish(since=since).words() == [f"--since={said}"]


def test_levels_have_the_names_of_journald_and_those_that_people_write() -> None:
    assert Wish(level="warning").words() == ["--priority=warning"]
    assert Wish(level="ERROR").words() == ["--priority=err"]
    with pytest.raises(UsageError, match=r"loud is not a level\. There are: debug, info"):
        Wish(level="loud").words()


Start = Callable[[str, Sequence[str], bool], list[str]]


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Session, Callable[[Start], None]]:
    """Two hosts with Kafka, whose journals are programs of the test's."""
    session = sessions.session(tmp_path, running=True, provider="vagrant", a="kafka", b="kafka")

    def say(what: Start) -> None:
        def start(
            _self: journal.Journals, host: Host, _units: object, options: Sequence[str], *, live: bool
        ) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                what(host.name, options, live), stdout=subprocess.PIPE, stderr=None if live else subprocess.PIPE
            )

        monkeypatch.setattr(journal.Journals, "_start", start)

    return session, say


Hosts = tuple[Session, Callable[[Start], None]]


def printed(*lines: bytes) -> list[str]:
    return ["printf", "%s\\n", *(each.decode() for each in lines)]


def test_the_newest_lines_of_all_hosts_together(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    session, say = hosts
    asked: list[str] = []

    def what(host: str, options: Sequence[str], _live: bool) -> list[str]:
        asked.extend(options)
        return printed(line(4, "a4"), line(1)) if host == "a" else printed(line(3, "b3"), line(2, "b2"))

    say(what)
    assert logs.show(session, "kafka", Wish(lines=3)) is None
    assert [each.rpartition(" ")[2] for each in capsys.readouterr().out.splitlines()] == ["b2", "b3", "a4"]
    assert asked == ["--lines=3", "--reverse"] * 2
    words = logs.show(session, "", Wish(lines=3, since="1h"))
    assert words is not None
    assert "--lines 30" in words


def test_a_host_that_cannot_be_read_does_not_hide_the_other(
    hosts: Hosts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, say = hosts
    say(lambda host, *_: printed(line(1, "seen")) if host == "a" else ["sh", "-c", "echo 'no route' >&2; exit 255"])
    with pytest.raises(OperatorError, match=r"not all of it: b did not show its journal \(no route\)"):
        logs.show(session, "kafka", Wish())
    assert "seen" in capsys.readouterr().out
    monkeypatch.setattr(session.provider, "running", lambda host: host.name == "a")
    with pytest.raises(OperatorError, match="not all of it: b is not running"):
        logs.show(session, "kafka", Wish())
    assert "seen" in capsys.readouterr().out


def test_a_time_that_is_none_is_wrong_usage(hosts: Hosts) -> None:
    session, say = hosts
    say(lambda *_: ["sh", "-c", "echo 'Failed to parse timestamp: noonish' >&2; exit 1"])
    with pytest.raises(UsageError, match="noonish is no time: write --since 10m"):
        logs.show(session, "kafka", Wish(since="noonish"))


def test_followed_journals_are_merged_and_continue_after_the_last_cursor(
    hosts: Hosts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, say = hosts
    monkeypatch.setattr(journal, "REORDER_SECONDS", 5.0)
    asked: dict[str, Sequence[str]] = {}

    def what(host: str, options: Sequence[str], live: bool) -> list[str]:
        if not live:
            return printed(line(1, "a1")) if host == "a" else ["true"]
        asked[host] = options
        # The other host's line is the older one and comes later.
        return printed(line(9, "a9")) if host == "a" else ["sh", "-c", f"sleep 0.3; echo '{line(8, 'b8').decode()}'"]

    say(what)
    with pytest.raises(OperatorError, match="a says no more"):
        logs.show(session, "kafka", Wish(follow=True))
    assert [each.rpartition(" ")[2] for each in capsys.readouterr().out.splitlines()] == ["a1", "b8", "a9"]
    assert asked["a"] == ["--follow", "--no-tail", "--after-cursor=c1"]
    assert asked["b"][:2] == ["--follow", "--no-tail"]
    assert asked["b"][2].startswith("--since=@")


def test_a_followed_journal_has_one_beginning_and_the_given_level(hosts: Hosts) -> None:
    session, say = hosts
    asked: list[tuple[bool, Sequence[str]]] = []

    def what(host: str, options: Sequence[str], live: bool) -> list[str]:
        asked.append((live, options))
        return ["echo", "journalctl: no such thing"] if live else printed(line(1)) if host == "a" else ["true"]

    say(what)
    with pytest.raises(OperatorError, match=r"a says no more \(journalctl: no such thing\)"):
        logs.show(session, "kafka", Wish(follow=True, since="10m", level="warning"))
    for live, options in asked:
        assert "--priority=warning" in options
        beginnings = [word for word in options if word.startswith(("--since=", "--after-cursor="))]
        assert len(beginnings) == 1
        assert (beginnings[0] == "--since=-10m") is not live


def test_a_signal_ends_the_followed_journals(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    session, say = hosts
    started: list[subprocess.Popen[bytes]] = []
    say(lambda _host, _options, live: ["sleep", "600"] if live else ["true"])
    start = journal.Journals._start

    def noted(*arguments: Any, **more: Any) -> subprocess.Popen[bytes]:
        process = start(*arguments, **more)
        if more["live"]:
            started.append(process)
        return process

    def told(*_: object) -> None:
        raise Terminated(signal.SIGTERM)

    monkeypatch.setattr(journal.Journals, "_start", noted)
    monkeypatch.setattr(journal.Journals, "_merge", told)
    logs.show(session, "kafka", Wish(follow=True))
    assert [process.returncode for process in started] == [-signal.SIGTERM, -signal.SIGTERM]


def test_the_command_that_reads_a_hosts_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host("a", frozenset({"kafka"}), {"ansible_host": "192.0.2.1", "ansible_user": "ops"})
    environment = Environment("demo", tmp_path, (host,), {"provider": "existing"})
    session = Session(environment, Existing(environment), Screen())
    journals = journal.Journals(session, [], LISTED, [], lambda one: session.screen.line(one.line()))
    ran: list[list[str]] = []
    monkeypatch.setattr(ssh, "reached", lambda *_: SimpleNamespace(sudo_password=""))
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: ran.append(command))
    journals._start(host, ["kafka.service"], ["--lines=5", "--priority=err"], live=False)
    journals._start(host, ["kafka.service"], ["--follow"], live=True)
    assert ran[0][-1].startswith(
        "sudo -n env SYSTEMD_COLORS=0 TZ=UTC journalctl --no-pager --quiet --all --output=json "
    )
    assert ran[0][-1].endswith(" --lines=5 --priority=err --unit=kafka.service")
    assert ["-tt" in command for command in ran] == [False, True]
