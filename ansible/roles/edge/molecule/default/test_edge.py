"""nginx passes requests to the API, limits each client, and keeps its connections over a reload."""

import http.client
import json
import ssl
import urllib.error
import urllib.request

from asking import kill, listening, run, show, until

PORT = 8001
URL = f"https://127.0.0.1:{PORT}"
# The scenario's certificate signs itself, for a name that is no address.
TRUSTED = ssl.create_default_context(cafile="/etc/streampulse/edge/tls.pem")
TRUSTED.check_hostname = False


def ask(path: str, body: bytes | None = None) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the text of a response of the edge."""
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, body), timeout=10, context=TRUSTED) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def answers() -> bool:
    """Return whether the API answers through the edge."""
    return ask("/health")[0] == 200


def test_the_api_answers_through_it_on_every_address() -> None:
    until("the API answers through the edge", 30, answers)
    # Prometheus scrapes this path through the edge.
    assert ask("/prometheus")[0] == 200
    assert "127.0.0.1" not in listening(PORT)
    assert listening(80) == set()


def test_plain_http_is_sent_to_tls() -> None:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    connection.request("GET", "/state")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (308, f"{URL}/state")


def test_a_large_body_is_refused_before_the_api() -> None:
    status, _, text = ask("/login", bytes(20_000))
    assert status == 413
    assert "error" in json.loads(text)


def test_a_flood_is_refused_with_the_time_to_wait() -> None:
    refused = [answer for answer in (ask("/state?limit=1") for _ in range(300)) if answer[0] == 429]
    assert refused
    assert refused[0][1]["Retry-After"] == "5"
    assert "error" in json.loads(refused[0][2])
    until("the API answers again", 30, answers)


def test_the_journal_has_requests_without_their_queries() -> None:
    ask("/metrics/history?minutes=1&stream_id=somebodys-name")
    lines = until("the request is in the journal", 10, lambda: run("journalctl", "--identifier=edge", "--lines=20"))
    assert 'path="/metrics/history" status=' in lines
    assert "somebodys-name" not in lines


def test_a_reload_keeps_the_process() -> None:
    before = show("streampulse-edge", "MainPID")
    run("systemctl", "reload", "streampulse-edge")
    assert show("streampulse-edge", "MainPID") == before
    assert answers()


def test_it_comes_back_after_a_kill() -> None:
    kill("streampulse-edge")
    until("the API answers through the edge", 30, answers)
