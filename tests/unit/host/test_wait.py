"""``streampulse wait`` for HTTP services: ready, not yet, and behind a password."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from http_server import Answer, Request, serving

from streampulse.host import cli

WORD = base64.b64encode(b"streampulse:right").decode()


class Pages:
    """/ready is ready the third time; /guarded asks for a password; every other path is never ready.

    A test sets the targets; they are up after two requests.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.targets: list[dict[str, Any]] = []

    def answer(self, request: Request) -> Answer:
        if request.path == "/ready":
            self.asked += 1
            return 200 if self.asked >= 3 else 503, b""
        if request.path == "/guarded":
            return 200 if request.headers.get("Authorization") == f"Basic {WORD}" else 401, b""
        if request.path == "/json/":
            states = {"10.0.0.1": "ALIVE", "10.0.0.2": "DEAD"}
            workers = [{"host": host, "state": state} for host, state in states.items()]
            return 200, {"status": "ALIVE", "workers": workers}
        if request.path != "/api/v1/targets?state=active":
            return 503, b""
        shown, self.targets = self.targets, [{**target, "health": target["next"]} for target in self.targets]
        return 200, {"data": {"activeTargets": shown}}


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def address(pages: Pages) -> Iterator[str]:
    with serving(pages.answer) as url:
        yield url


def wait(*arguments: str, seconds: str = "0.4") -> int:
    return cli.main(["wait", "prometheus", "--timeout", seconds, *arguments])


def test_it_returns_when_the_page_is_ready(pages: Pages, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert wait("--url", f"{address}/ready", seconds="30") == 0
    assert pages.asked == 3
    assert "prometheus: ready at" in capsys.readouterr().out


def test_a_time_out_names_the_last_observation(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert wait("--url", f"{address}/never") == 1
    assert f"{address}/never answers 503. Look at its log: inv logs prometheus" in capsys.readouterr().err
    assert wait() == 1
    assert "needs --url URL" in capsys.readouterr().err


def test_a_worker_must_be_alive_on_its_own_host(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMPULSE_SPARK_MASTER_UI", address)
    spark = ["wait", "spark", "--timeout", "0.4"]
    assert cli.main([*spark, "--worker", "10.0.0.1"]) == 0
    assert cli.main([*spark, "--worker", "10.0.0.2"]) == 1
    assert "the worker of 10.0.0.2 is not registered" in capsys.readouterr().err


@pytest.mark.parametrize(("port", "has", "code"), [(None, 512, 0), (None, 0, 1), (9, 0, 0)])
def test_a_worker_has_the_executors_that_the_master_books_unless_it_does_not_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: int | None, has: int, code: int
) -> None:
    state: dict[str, Any] = {"status": "ALIVE", "executors": [{"memory": has}]}
    with serving(lambda _: (200, state)) as url:
        worker = {"id": "w", "host": "10.0.0.1", "state": "ALIVE", "memoryused": 512}
        state["workers"] = [worker | {"webuiaddress": f"http://127.0.0.1:{port}" if port else url}]
        monkeypatch.setenv("STREAMPULSE_SPARK_MASTER_UI", url)
        assert cli.main(["wait", "spark", "--reconciled", "--timeout", "0.4"]) == code
    assert ("books 512 MiB for executors of 10.0.0.1, which have 0 MiB" in capsys.readouterr().err) == (code == 1)


@pytest.mark.parametrize(
    "url",
    [
        "foo", "127.0.0.1:9090/ready", "file:///etc/hostname", "ftp://x", "http:/x", "http://", "http://[x",
        "http://a..b",
    ],
)  # fmt: skip
def test_an_invalid_page_address_is_wrong_usage(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert wait("--url", url) == 2
    assert f"--url {url} is no address of a page: " in capsys.readouterr().err


@pytest.mark.parametrize(("password", "code"), [("right", 0), ("wrong", 1), ("", 0)])
def test_a_guarded_page_is_ready_unless_the_password_is_wrong(
    address: str, monkeypatch: pytest.MonkeyPatch, password: str, code: int
) -> None:
    monkeypatch.setenv("STREAMPULSE_MONITORING_USER", "streampulse")
    monkeypatch.setenv("STREAMPULSE_MONITORING_PASSWORD", password)
    assert wait("--url", f"{address}/guarded") == code


def target(job: str, then: str, error: str = "") -> dict[str, Any]:
    return {"labels": {"job": job, "host": "h", "instance": "i"}, "health": "unknown", "next": then, "lastError": error}


@pytest.mark.parametrize(
    ("targets", "code", "said"),
    [
        ([target("kafka", "up"), target("api", "up")], 0, "targets: Prometheus reads all 2"),
        (
            [target("kafka", "down", "connection refused"), target("api", "up")],
            1,
            "Prometheus does not read kafka on h (connection refused). Look at its log: inv logs prometheus",
        ),
        ([], 1, "Prometheus does not read anything"),
    ],
)
def test_targets(
    pages: Pages,
    address: str,
    targets: list[dict[str, Any]],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STREAMPULSE_MONITORING_PROMETHEUS_URL", address)
    pages.targets = targets
    assert cli.main(["wait", "targets", "--timeout", "0.4" if code else "30"]) == code
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_targets_without_monitoring(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("STREAMPULSE_MONITORING_PROMETHEUS_URL", raising=False)
    assert cli.main(["wait", "targets"]) == 1
    assert "inv up --full writes" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["prometheus:9090", "file:///etc", "http://"])
def test_targets_at_an_invalid_address(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMPULSE_MONITORING_PROMETHEUS_URL", address)
    assert cli.main(["wait", "targets"]) == 1
    told = capsys.readouterr().err
    assert f"STREAMPULSE_MONITORING_PROMETHEUS_URL is {address}, which is no address: it has to be http://" in told
