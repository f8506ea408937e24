"""The API answers over HTTP, reports an absent PostgreSQL, and recovers by itself."""

import json
import urllib.request
from typing import Any

import pytest
from asking import ADDRESS, get, kill, listening, postgres, run, said, settings, show, stopped, until

PORT = int(settings("api")["STREAMPULSE_API_PORT"])
URL = f"http://{ADDRESS}:{PORT}"
ROWS = ["/metrics?minutes=2&limit=2", "/metrics/latest?limit=2", "/state?limit=2", "/streams/top?minutes=2&n=2"]


def healthy(status: int, seconds: float) -> Any:
    """Wait until /health answers with a status and return the response."""
    until(f"/health answers {status}", seconds, lambda: get(f"{URL}/health")[0] == status)
    return json.loads(get(f"{URL}/health")[1])


def test_it_is_healthy() -> None:
    assert healthy(200, 60) == {"ok": True}


@pytest.mark.parametrize("path", ROWS)
def test_a_path_answers_with_rows(path: str) -> None:
    status, text = get(URL + path)
    assert status == 200, text
    assert "rows" in json.loads(text)


def test_a_wrong_parameter_is_refused() -> None:
    assert get(f"{URL}/metrics?limit=0")[0] == 422


def test_the_page_is_guarded_and_live() -> None:
    with urllib.request.urlopen(f"{URL}/", timeout=10) as page:
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert b"streampulse" in page.read()
    with urllib.request.urlopen(f"{URL}/live", timeout=20) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        # Accept either line ending.
        assert b"event: snapshot" in [stream.readline().strip() for _ in range(6)]
    with urllib.request.urlopen(f"{URL}/metrics/latest", timeout=10) as answer:
        assert float(answer.headers["X-Snapshot-Age"]) < 5


def test_it_may_open_as_many_files_as_it_has_readers() -> None:
    assert int(show("streampulse-api", "LimitNOFILE")) >= 10_000


def test_it_reports_that_postgresql_is_away() -> None:
    with stopped(postgres()):
        away = healthy(503, 15)
        assert away["ok"] is False
        assert away["error"]
        assert get(f"{URL}/metrics/history?minutes=1000&stream_id=red")[0] == 503
    healthy(200, 30)
    warnings = said("streampulse-api", "warning")
    assert any(' msg="PostgreSQL is away" ' in line for line in warnings), warnings
    assert any("stream_id=red" in line and " request_id=" in line for line in warnings), warnings
    assert all(line.startswith("ts=") for line in warnings), warnings


def test_a_restart_refuses_no_request_and_a_stop_refuses_every_one() -> None:
    before = show("streampulse-api", "MainPID")
    run("systemctl", "restart", "--no-block", "streampulse-api")
    while show("streampulse-api", "MainPID") in ("0", before):
        assert get(f"{URL}/state?limit=1")[0] == 200
    healthy(200, 30)
    with stopped("streampulse-api"):
        # systemd reports the stop before it closes the socket that it kept.
        until("nothing listens", 5, lambda: not listening(PORT))


def test_it_comes_back_after_a_kill() -> None:
    kill("streampulse-api")
    healthy(200, 90)
