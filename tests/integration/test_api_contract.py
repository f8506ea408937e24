"""Every path of the API against handwritten rows: shapes, order, ties, paging, bounds, strange names."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from api_client import FreshClient, make_app
from conftest import Database, own_database
from fastapi.testclient import TestClient
from postgres import PostgresServer
from prometheus_client import REGISTRY

pytestmark = pytest.mark.postgres

INSERT = "INSERT INTO stream_metrics_minute VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
# Names that must survive unchanged, in the order of their code points.
STRANGE = sorted(
    [
        " ", "'; DROP TABLE stream_metrics_minute; --", '"quoted"', "%", "%(stream_id)s", "%s", "&limit=1#",
        "../../etc/passwd", "<script>alert(1)</script>", "\\", "_one underscore", "a\nb",
        "a\u0000b".replace("\u0000", "\u0001"), "e\u0301", "\u00e9", "\u202eabc", "\ufeff", "\uffff", "\U0001f600",
        "\U0010ffff" * 128, "x" * 128,
    ]
)  # fmt: skip
assert len(set(STRANGE)) == 21


@pytest.fixture(scope="module")
def shared(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    with own_database(postgres_server, migrated_template) as database:
        yield database


@pytest.fixture(scope="module")
def client(shared: Database) -> Iterator[TestClient]:
    with FreshClient(make_app(shared.settings())) as client:
        yield client


@pytest.fixture
def database(shared: Database) -> Database:
    """Empty the tables: far quicker than a database for each test."""
    shared.execute("TRUNCATE stream_metrics_minute, stream_presence; UPDATE event_clock SET clock = NULL")
    return shared


def minute(number: int) -> str:
    return f"2026-05-01T12:{number:02d}:00Z"


def row(window: int, stream: str, number: int = 0, usd: str = "0") -> tuple[object, ...]:
    """Return a row whose columns all differ, so that swapped columns are noticed."""
    return (minute(window), stream, number + 1, number + 2, usd, number + 3, number + 4, number + 5, number + 6)


def answer(window: int, stream: str, number: int = 0, usd: str = "0.00") -> dict[str, object]:
    return {
        "window_start": minute(window),
        "stream_id": stream,
        "chat_messages": number + 1,
        "donations": number + 2,
        "donations_usd": usd,
        "joins": number + 3,
        "leaves": number + 4,
        "unique_viewers": number + 5,
        "active_viewers": number + 6,
    }


def fill_presence(database: Database) -> None:
    database.execute(
        "INSERT INTO stream_presence SELECT stream_id, 5, NULL, max(window_start) FROM stream_metrics_minute GROUP BY 1"
    )
    database.execute("UPDATE event_clock SET clock = '2026-05-01T12:59:30.123456Z'")


def get(client: TestClient, path: str, **parameters: object) -> Any:
    response = client.get(path + ("?" + urlencode(parameters) if parameters else ""))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def keys(rows: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(int(row["window_start"][14:16]), row["stream_id"]) for row in rows]


@pytest.mark.usefixtures("database")
def test_empty_tables_give_empty_answers(client: TestClient) -> None:
    assert get(client, "/metrics") == {"latest_window_start": None, "rows": []}
    assert get(client, "/metrics", stream_id="__smoke-1") == {"latest_window_start": None, "rows": []}
    for path in ("/metrics/latest", "/metrics/history", "/state", "/streams/top"):
        assert get(client, path) == {"rows": []}


def test_metrics_newest_first_then_by_stream(client: TestClient, database: Database) -> None:
    database.execute(
        INSERT, row(3, "b", 10, "12.5"), row(3, "a", 20, "1000000000"), row(4, "b", 30, "0.01"), row(1, "a")
    )
    assert get(client, "/metrics", minutes=10, limit=5) == {
        "latest_window_start": minute(4),
        "rows": [
            answer(4, "b", 30, "0.01"),
            answer(3, "a", 20, "1000000000.00"),
            answer(3, "b", 10, "12.50"),
            answer(1, "a"),
        ],
    }
    assert keys(get(client, "/metrics", limit=2)["rows"]) == [(4, "b"), (3, "a")]


def test_minutes_are_the_last_windows_of_the_whole_table(client: TestClient, database: Database) -> None:
    """Counted from the newest window of all streams, minutes without rows included."""
    database.execute(INSERT, *[row(window, "a") for window in (1, 5, 6)], row(9, "b"))
    for minutes, expected in [(1, [9]), (3, [9]), (4, [9, 6]), (5, [9, 6, 5]), (8, [9, 6, 5]), (9, [9, 6, 5, 1])]:
        rows = get(client, "/metrics", minutes=minutes)["rows"]
        assert [window for window, _ in keys(rows)] == expected
        assert keys(get(client, "/metrics/history", minutes=minutes)["rows"]) == sorted(keys(rows))
    # For a stream that is behind, only its rows in those windows.
    found = get(client, "/metrics", minutes=4, stream_id="a")
    assert found["latest_window_start"] == minute(9)
    assert keys(found["rows"]) == [(6, "a")]
    assert keys(get(client, "/metrics/history", minutes=5, stream_id="a")["rows"]) == [(5, "a"), (6, "a")]
    assert get(client, "/metrics/history", minutes=3, stream_id="a") == {"rows": []}


def test_history_oldest_first(client: TestClient, database: Database) -> None:
    database.execute(INSERT, row(2, "b", 10), row(1, "b"), row(2, "a", 20, "3.1"))
    assert get(client, "/metrics/history") == {"rows": [answer(1, "b"), answer(2, "a", 20, "3.10"), answer(2, "b", 10)]}
    assert keys(get(client, "/metrics/history", limit=2)["rows"]) == [(1, "b"), (2, "a")]
    assert keys(get(client, "/metrics/history", limit=1, stream_id="b")["rows"]) == [(1, "b")]


def test_history_of_one_stream_is_a_whole_day(client: TestClient, database: Database) -> None:
    database.execute(
        "INSERT INTO stream_metrics_minute SELECT timestamptz '2026-05-01T00:00Z' + n * interval '1 min', 'a',"
        " n, 0, 0, 0, 0, 0, 0 FROM generate_series(0, 1499) AS n"
    )
    rows = get(client, "/metrics/history", minutes=1440, stream_id="a")["rows"]
    assert [row["chat_messages"] for row in rows] == list(range(60, 1500))
    assert len(get(client, "/metrics/history", minutes=1440)["rows"]) == 1000


def test_latest_is_the_newest_row_of_each_stream(client: TestClient, database: Database) -> None:
    database.execute(INSERT, row(1, "c", 10), row(7, "a", 20), row(3, "b", 30), row(2, "b"), row(6, "a"))
    fill_presence(database)
    assert get(client, "/metrics/latest") == {"rows": [answer(7, "a", 20), answer(3, "b", 30), answer(1, "c", 10)]}
    assert get(client, "/metrics/latest", stream_id="b") == {"rows": [answer(3, "b", 30)]}
    assert get(client, "/metrics/latest", stream_id="nobody") == {"rows": []}


def test_state(client: TestClient, database: Database) -> None:
    database.execute(INSERT, row(1, "b"), row(1, "a"))
    fill_presence(database)
    one = {"stream_id": "a", "active_viewers": 5, "updated_at": "2026-05-01T12:59:30.123456Z"}
    assert get(client, "/state") == {"rows": [one, one | {"stream_id": "b"}]}
    assert get(client, "/state", stream_id="a") == {"rows": [one]}
    assert get(client, "/state", stream_id="nobody") == {"rows": []}


@pytest.mark.parametrize("path", ["/metrics/latest", "/state"])
def test_paging_reaches_every_stream_once(client: TestClient, database: Database, path: str) -> None:
    names = sorted([f"stream-{number}" for number in range(25)] + STRANGE)
    database.execute(INSERT, *[row(1, name) for name in [*names, "__smoke-1", "__probe"]])
    fill_presence(database)
    seen: list[str] = []
    while True:
        rows = get(client, path, limit=7, **({"after": seen[-1]} if seen else {}))["rows"]
        seen += [row["stream_id"] for row in rows]
        if len(rows) < 7:
            break
    assert seen == names


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        # a: sums 30, maxima 20; b: 25, 25; c and d: 25, 25 as well.
        ("chat_messages", "abcd"),
        ("donations", "abcd"),
        ("donations_usd", "abcd"),
        ("joins", "abcd"),
        ("leaves", "abcd"),
        ("unique_viewers", "bcda"),
        ("active_viewers", "bcda"),
    ],
)
def test_top_sums_and_maxima_ties_by_stream(client: TestClient, database: Database, by: str, expected: str) -> None:
    def even(window: int, stream: str, number: int) -> tuple[object, ...]:
        return (minute(window), stream, *[number] * 7)

    database.execute(INSERT, even(1, "a", 20), even(2, "a", 10), *[even(2, name, 25) for name in "dcb"])
    rows = get(client, "/streams/top", by=by, n=10)["rows"]
    assert "".join(row["stream_id"] for row in rows) == expected
    assert next(row for row in rows if row["stream_id"] == "a") == {
        "stream_id": "a", "chat_messages": 30, "donations": 30, "donations_usd": "30.00", "joins": 30, "leaves": 30,
        "unique_viewers": 20, "active_viewers": 20,
    }  # fmt: skip
    assert [row["stream_id"] for row in get(client, "/streams/top", by=by, n=2)["rows"]] == list(expected[:2])
    # Only the newest window: a has fallen behind.
    assert get(client, "/streams/top", by=by, n=9, minutes=1)["rows"][-1]["stream_id"] == "a"


def test_top_ranks_money_as_numbers(client: TestClient, database: Database) -> None:
    database.execute(INSERT, row(1, "a", usd="9.99"), row(1, "b", usd="10.00"), row(1, "c", usd="100.00"))
    assert [row["stream_id"] for row in get(client, "/streams/top")["rows"]] == ["c", "b", "a"]


def test_internal_streams_appear_only_when_named(client: TestClient, database: Database) -> None:
    database.execute(
        INSERT,
        row(1, "a"),
        row(1, "_a"),
        row(1, "__smoke-1", 10, "5"),
        row(8, "__smoke-1", 20),
        row(9, "__probe", 1000),
    )
    fill_presence(database)
    assert keys(get(client, "/metrics")["rows"]) == [(1, "_a"), (1, "a")]
    assert get(client, "/metrics")["latest_window_start"] == minute(1)
    assert keys(get(client, "/metrics/history")["rows"]) == [(1, "_a"), (1, "a")]
    assert keys(get(client, "/metrics/latest")["rows"]) == [(1, "_a"), (1, "a")]
    assert [row["stream_id"] for row in get(client, "/state")["rows"]] == ["_a", "a"]
    assert [row["stream_id"] for row in get(client, "/streams/top", by="chat_messages")["rows"]] == ["_a", "a"]
    # A named internal stream, ahead of all others: its own newest window counts.
    named = get(client, "/metrics", stream_id="__smoke-1")
    assert named == {
        "latest_window_start": minute(8),
        "rows": [answer(8, "__smoke-1", 20), answer(1, "__smoke-1", 10, "5.00")],
    }
    assert keys(get(client, "/metrics/history", stream_id="__smoke-1", minutes=1)["rows"]) == [(8, "__smoke-1")]
    assert keys(get(client, "/metrics/latest", stream_id="__smoke-1")["rows"]) == [(8, "__smoke-1")]
    assert [row["stream_id"] for row in get(client, "/state", stream_id="__smoke-1")["rows"]] == ["__smoke-1"]
    # Internal streams do not move an ordinary one.
    assert get(client, "/metrics", stream_id="a")["latest_window_start"] == minute(1)


def test_strange_names_come_through(client: TestClient, database: Database) -> None:
    database.execute(INSERT, *[row(1, name) for name in STRANGE])
    fill_presence(database)
    for path, size in [("/metrics", "limit"), ("/metrics/latest", "limit"), ("/state", "limit"), ("/streams/top", "n")]:
        assert [row["stream_id"] for row in get(client, path, **{size: 1000})["rows"]] == STRANGE
    for name in STRANGE:
        for path in NAMED:
            assert [row["stream_id"] for row in get(client, path, stream_id=name)["rows"]] == [name]
    assert database.query("SELECT count(*) FROM stream_metrics_minute") == [(len(STRANGE),)]


LIMITED = [("/metrics", "limit"), ("/metrics/latest", "limit"), ("/metrics/history", "limit"), ("/state", "limit")]
SPANS = ["/metrics", "/metrics/history", "/streams/top"]
NAMED = ["/metrics", "/metrics/latest", "/metrics/history", "/state"]


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        *[(path, name, value) for path, name in [*LIMITED, ("/streams/top", "n")] for value in ("0", "1001")],
        *[(path, "minutes", value) for path in SPANS for value in ("0", "1441")],
        *[
            ("/metrics", "limit", value)
            for value in ("", "-1", "x", "1.5", "1.0", "1_0", "+5", " 5", "1e2", "9" * 5000)
        ],
        *[("/metrics", "minutes", value) for value in ("", "NaN", "\u0665", "5\x00")],
        *[(path, "stream_id", value) for path in NAMED for value in ("", "a\x00b", "x" * 129)],
        *[(path, "after", value) for path in ("/metrics/latest", "/state") for value in ("a\x00b", "x" * 129)],
        *[("/streams/top", "by", value) for value in ("", "stream_id", "donations_usd; --", "sum(joins)", "JOINS")],
    ],
)
def test_bad_parameters_are_named(client: TestClient, path: str, name: str, value: str) -> None:
    response = client.get(path + "?" + urlencode({name: value}))
    assert response.status_code == 422, response.text
    body = response.json()
    assert [(bad["parameter"], bad["value"]) for bad in body["parameters"]] == [(name, value)]
    assert body["parameters"][0]["allowed"] != "no such parameter here"
    assert body["error"].startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/metrics", "minute"), ("/state", "minutes"), ("/streams/top", "stream_id"), ("/metrics", "after")],
)
def test_unknown_parameters_are_named(client: TestClient, path: str, name: str) -> None:
    response = client.get(path + "?" + urlencode({name: "1"}))
    assert response.status_code == 422
    assert response.json()["parameters"] == [{"parameter": name, "value": "1", "allowed": "no such parameter here"}]


@pytest.mark.parametrize("bad", ["%ff%fe", "%ED%A0%80", "a%80"])
def test_bytes_that_are_not_utf8_are_no_stream(client: TestClient, database: Database, bad: str) -> None:
    database.execute(INSERT, row(0, "\ufffd"))
    refused = client.get(f"/metrics?stream_id={bad}&limit=3")
    assert refused.status_code == 422
    (named,) = refused.json()["parameters"]
    assert (named["parameter"], named["allowed"]) == ("stream_id", "text in UTF-8")
    assert "\\x" in named["value"]


@pytest.mark.parametrize("query", ["minutes=2&minutes=abc", "minutes=abc&minutes=2", "minutes=2&minute%73=2"])
def test_a_parameter_is_given_once(client: TestClient, query: str) -> None:
    refused = client.get(f"/metrics?{query}")
    assert refused.status_code == 422
    (named,) = refused.json()["parameters"]
    assert (named["parameter"], named["allowed"]) == ("minutes", "one value only")


def test_health(client: TestClient, database: Database) -> None:
    database.execute("UPDATE event_clock SET clock = now() + interval '4 min'")
    assert get(client, "/health") == {"ok": True}
    database.execute("UPDATE event_clock SET clock = now() + interval '900 s'")
    (warning,) = get(client, "/health")["warnings"]
    assert re.fullmatch(r"the event clock is (900|899) s ahead of PostgreSQL's clock", warning)
    # Load balancers add unknown parameters.
    assert client.get("/health?a=1&a=2&b=%ff").status_code == 200


def test_page_links_only_to_paths_that_answer(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    links = {part.split('"')[0].replace("&amp;", "&") for part in page.text.split('href="')[1:]}
    assert len(links) > 5
    # The log-in page exists only with a key.
    for link in links - {"/login"}:
        assert client.get(link).status_code == 200


def test_unknown_paths_and_methods_are_json(client: TestClient) -> None:
    assert client.get("/nowhere").status_code == 404
    assert client.get("/nowhere").json() == {"error": "Not Found"}
    assert client.get("/metrics/", follow_redirects=False).status_code == 404
    refused = client.post("/metrics")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert "error" in refused.json()


#: Values that differ between responses.
MOVING = {"x-snapshot-age", "x-request-id", "content-length"}


@pytest.mark.parametrize(
    "target",
    [
        *("/health", "/metrics?limit=2", "/metrics/latest", "/metrics/history?minutes=3", "/state", "/streams/top"),
        *("/live", "/", "/docs", "/openapi.json", "/prometheus", "/nowhere", "/metrics?limit=0"),
    ],
)
def test_head_answers_as_get_without_the_body(client: TestClient, target: str) -> None:
    head = client.head(target)
    assert head.content == b""
    if target == "/live":
        # Its GET does not end.
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        return
    whole = client.get(target)
    assert head.status_code == whole.status_code
    assert {name: value for name, value in head.headers.items() if name not in MOVING} == {
        name: value for name, value in whole.headers.items() if name not in MOVING
    }
    if target != "/prometheus":
        # The second request has counted the first one.
        assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))


def test_head_is_counted_as_head_by_its_route(client: TestClient) -> None:
    def counted() -> float:
        labels = {"route": "/metrics/latest", "method": "HEAD", "status": "200"}
        return REGISTRY.get_sample_value("streampulse_api_http_requests_total", labels) or 0.0

    before = counted()
    client.head("/metrics/latest")
    assert counted() == before + 1


def test_requests_are_counted_by_route_and_never_by_a_clients_text(client: TestClient) -> None:
    get(client, "/metrics", stream_id="label-1")
    client.get("/label-2/label-3")
    client.get("/assets/label-5")
    client.get("/state", headers={"X-Request-ID": "label-6"})
    client.request("LABEL-4", "/metrics")
    text = client.get("/prometheus").text
    assert 'streampulse_api_http_requests_total{method="GET",route="/metrics",status="200"}' in text
    assert 'route="unmatched",status="404"' in text
    assert 'streampulse_api_http_request_duration_seconds_bucket{le="0.01",route="/metrics"}' in text
    assert "label-" not in text.lower()


def test_answers_are_counted_by_their_source(client: TestClient) -> None:
    def counted() -> list[float]:
        name = "streampulse_api_answers_total"
        return [REGISTRY.get_sample_value(name, {"source": each}) or 0.0 for each in ("snapshot", "database")]

    before = counted()
    get(client, "/metrics")
    get(client, "/metrics", stream_id="__internal")
    assert counted() == [before[0] + 1, before[1] + 1]


def test_request_ids(client: TestClient) -> None:
    assert client.get("/health", headers={"X-Request-ID": "abc.1_2-3"}).headers["x-request-id"] == "abc.1_2-3"
    made = {
        client.get("/health", headers={"X-Request-ID": bad}).headers["x-request-id"] for bad in ("", "a b", "x" * 65)
    }
    assert len(made) == 3
    assert all(len(name) == 16 for name in made)


def test_access_log_is_one_line_for_each_request(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="streampulse.api.access")
    client.get("/metrics?limit=0&x=%0Alevel=error", headers={"X-Request-ID": "r1"})
    (record,) = [record for record in caplog.records if record.name == "streampulse.api.access"]
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["request_id"], fields["path"], fields["status"]) == ("r1", "/metrics", 422)
    assert fields["query"] == "limit=0&x=%0Alevel=error"
