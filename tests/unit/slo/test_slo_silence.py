"""Silences: refusals, requests to Alertmanager, and reading back."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import pytest
from http_server import Answer, Request
from monitoring_server import Told, serving

from streampulse.core.errors import OperatorError, UsageError
from streampulse.host import cli
from streampulse.host.slo import silence

KAFKA = {"alertname": "KafkaDown", "severity": "page", "service": "kafka", "host": "a"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), ("90s", 90), (" 1h 5m ", 3900), ("1D", 86400)],
)
def test_durations(text: str, seconds: int) -> None:
    assert silence.seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "how long"), (None, "how long"), ("30", "not a duration"), ("m", "not a duration"),
        ("1.5h", "not a duration"), ("-5m", "not a duration"), ("30m1h", "not a duration"), ("soon", "not a duration"),
        ("0m", "no time at all"), ("31d", "more than 30 days"),
    ],
)  # fmt: skip
def test_an_invalid_duration_is_explained(text: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        silence.seconds_of(text)


@pytest.mark.parametrize(
    ("chosen", "quiet"),
    [
        ({"alert": "KafkaDown"}, True),
        ({"alert": "Kafka"}, False),
        ({"service": "kafka"}, True),
        ({"host": "a"}, True),
        ({"host": "."}, False),
        ({"host": "a", "service": "api"}, False),
        ({"everything": True}, True),
    ],
)
def test_the_alerts_that_a_silence_matches(chosen: dict[str, Any], quiet: bool) -> None:
    given = {"alert": None, "service": None, "host": None, "everything": False, **chosen}
    assert silence.fits(silence.matchers(**given), KAFKA) is quiet


def test_all_leaves_the_dead_mans_switch_out() -> None:
    wanted = silence.matchers(None, None, None, everything=True)
    assert not silence.fits(wanted, {"alertname": "Watchdog", "severity": "none"})
    assert silence.fits(wanted, {"alertname": "UnitFailed", "severity": "ticket"})
    assert silence.about(wanted) == "every alert but Watchdog"


class Quiet:
    """An Alertmanager that keeps silences, as its API does."""

    def __init__(self, told: Told) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.garble: dict[str, Any] = {}
        told.answers = {
            "GET /api/v2/alerts": (200, [{"labels": KAFKA}, {"labels": {**KAFKA, "host": "b"}}]),
            "GET /api/v2/silences": lambda _: (200, list(self.kept.values())),
            "POST /api/v2/silences": self.make,
            "GET /api/v2/silence/": lambda asked: (200, self.kept[asked.path.rpartition("/")[2]]),
            "DELETE /api/v2/silence/": self.end,
        }

    def make(self, asked: Request) -> Answer:
        identity = f"{len(self.kept):04x}0000-0000-4000-8000-000000000000"
        self.kept[identity] = {"id": identity, "status": {"state": "active"}, **asked.document, **self.garble}
        return 200, {"silenceID": identity}

    def end(self, asked: Request) -> Answer:
        self.kept[asked.path.rpartition("/")[2]]["status"] = {"state": "expired"}
        return 200, b""


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Quiet]:
    with serving() as told:
        for name in ("PROMETHEUS", "ALERTMANAGER"):
            monkeypatch.setenv(f"STREAMPULSE_MONITORING_{name}_URL", told.url)
        yield Quiet(told)


ASK = ["silence", "--for", "30m", "--reason", "new disks", "--author", "anna@desk", "--host", "a"]


def test_a_silence_is_made_read_back_and_ended(quiet: Quiet, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*ASK, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (kept,) = quiet.kept.values()
    assert kept["matchers"] == [{"name": "host", "value": "a", "isRegex": False, "isEqual": True}]
    assert (kept["createdBy"], kept["comment"]) == ("anna@desk", "new disks")
    assert answer["firing"] == ["KafkaDown on a"]
    assert answer["made"]["ends"] - answer["made"]["begins"] == pytest.approx(1800, abs=0.01)
    assert cli.main(["silence"]) == 0
    assert "00000000 active until" in capsys.readouterr().out
    assert cli.main(["silence", "--expire", "00000000", "--dry-run"]) == 0
    assert "would be ended" in capsys.readouterr().out
    assert cli.main(["silence", "--expire", "00000000"]) == 0
    assert "00000000 is ended: host a" in capsys.readouterr().out
    assert cli.main(["silence"]) == 0
    assert capsys.readouterr().out == "no silences\n"


def test_a_dry_run_makes_nothing(quiet: Quiet, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*ASK, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("would be silent about host a until ")
    assert "of what fires now: KafkaDown on a" in said
    assert not quiet.kept


@pytest.mark.parametrize(
    "garble",
    [
        {"comment": "something else"},
        {"createdBy": "nobody"},
        {"endsAt": "2026-01-01T00:00:00Z"},
        {"status": {"state": "expired"}},
        {"matchers": [{"name": "host", "value": "b", "isRegex": False, "isEqual": True}]},
    ],
)
def test_a_silence_that_is_not_as_asked_for_is_an_error(
    quiet: Quiet, capsys: pytest.CaptureFixture[str], garble: dict[str, Any]
) -> None:
    quiet.garble = garble
    assert cli.main(ASK) == 1
    assert "otherwise than asked for: inv silence" in capsys.readouterr().err


def test_the_beginning_of_an_identity_must_be_one_silences(quiet: Quiet, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(ASK) == 0
    assert cli.main(ASK) == 0
    for text, said in (("ffff", "ffff is not a silence that stands. There are: "), ("0", "0 is more than one")):
        capsys.readouterr()
        assert cli.main(["silence", "--expire", text]) == 1
        assert said in capsys.readouterr().err
    assert all(kept["status"]["state"] == "active" for kept in quiet.kept.values())


def test_a_silence_that_does_not_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as told:
        monkeypatch.setenv("STREAMPULSE_MONITORING_PROMETHEUS_URL", told.url)
        monkeypatch.setenv("STREAMPULSE_MONITORING_ALERTMANAGER_URL", told.url)
        Quiet(told)
        told.answers["DELETE /api/v2/silence/"] = (200, b"")
        assert cli.main(ASK) == 0
        with pytest.raises(OperatorError, match="did not end the silence"):
            silence.run(argparse.Namespace(expire="0000", dry_run=False, json=False))
