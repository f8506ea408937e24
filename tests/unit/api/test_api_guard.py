"""Access: keys, log-ins, rate limits, private paths, headers of proxies, and the size of requests."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from api_client import make_app
from fastapi.testclient import TestClient
from ports import free_port
from prometheus_client import generate_latest
from pydantic import SecretStr, ValidationError

from streampulse.api import networks
from streampulse.api.guard import Access
from streampulse.api.networks import TrustedProxies, household
from streampulse.core.errors import SettingsError
from streampulse.core.settings import ApiSettings, PostgresSettings, load

KEY = "first-key-0123456789"
OTHER = "second-key-0123456789"
SECRET = "s" * 32
OPEN = {"/metrics", "/metrics/latest", "/metrics/history", "/state", "/streams/top", "/live", "/openapi.json"}


@contextmanager
def guarded(address: str = "203.0.113.9", epoch: str | None = "first", **settings: Any) -> Iterator[TestClient]:
    """Serve a public API without a database to a client from an address.

    :param epoch: of log-ins, as a reading would tell; None for a worker without a reading.
    """
    postgres = PostgresSettings(
        host="127.0.0.1", port=free_port(), database="d", user="u", password=SecretStr("p"), sslmode="disable"
    )
    chosen: dict[str, Any] = {"public": True, "keys": f"{KEY},{OTHER}", "cookie_secret": SECRET, **settings}
    app = make_app(postgres, **chosen)
    app.state.runtime.epoch = epoch
    with TestClient(app, client=(address, 5), follow_redirects=False) as client:
        yield client


def log_in(client: TestClient, key: str = KEY) -> Any:
    return client.post("/login", data={"key": key})


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {OTHER}"}, {"X-API-Key": KEY}]
)
def test_a_key_lets_in(headers: dict[str, str]) -> None:
    with guarded() as client:
        # The guard let the request in: the 503 comes from the missing database.
        assert client.get("/metrics", headers=headers).status_code == 503
        assert client.get("/openapi.json", headers=headers).status_code == 200
        assert client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": f"{KEY},{OTHER}"}, {"X-API-Key": ""}, {"Cookie": f"streampulse_session={KEY}"},
        {"Cookie": "streampulse_session="},
    ],
)  # fmt: skip
def test_requests_without_a_valid_key_are_refused(headers: dict[str, str]) -> None:
    with guarded() as client:
        for path in OPEN:
            refused = client.get(path, headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert list(refused.json()) == ["error"]
        for path in ("/", "/docs"):
            sent_on = client.get(path, headers=headers)
            assert (sent_on.status_code, sent_on.headers["location"]) == (303, "/login")
        assert client.get("/nowhere", headers=headers).status_code == 401


def test_a_private_api_needs_no_key() -> None:
    with guarded(public=False, keys=None, cookie_secret=None) as client:
        assert client.get("/openapi.json").status_code == 200
        assert client.get("/login").status_code == 404
        assert client.get("/prometheus").status_code == 200


def test_a_log_in_sets_a_cookie_that_lets_in() -> None:
    with guarded() as client:
        assert log_in(client, "wrong").status_code == 401
        assert not client.cookies
        done = log_in(client)
        assert (done.status_code, done.headers["location"]) == (303, "/")
        set_cookie = done.headers["set-cookie"].lower()
        for word in ("httponly", "samesite=strict", "path=/", "max-age=604800"):
            assert word in set_cookie
        assert KEY not in set_cookie
        assert "secure" not in set_cookie
        assert client.get("/openapi.json").status_code == 200
        cookie = client.cookies["streampulse_session"]
    # Two bits of the last character have no meaning, so change another one.
    forged = cookie[:-5] + ("A" if cookie[-5] != "A" else "B") + cookie[-4:]
    cases: list[tuple[dict[str, Any], str, int]] = [
        ({}, cookie, 200),
        ({}, forged, 401),
        ({"cookie_secret": "t" * 32}, cookie, 401),
        # A worker that has not read the ended log-ins yet, and a database that was recreated.
        ({"epoch": None}, cookie, 401),
        ({"epoch": "second"}, cookie, 401),
        # The key of the log-in was removed.
        ({"keys": OTHER}, cookie, 401),
    ]
    for settings, value, status in cases:
        with guarded(**settings) as client:
            headers = {"Cookie": f"a=b; streampulse_session={value}"}
            assert client.get("/openapi.json", headers=headers).status_code == status


def test_before_the_first_reading_there_is_no_log_in() -> None:
    with guarded(epoch=None) as client:
        refused = log_in(client)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "No log-in is possible now: PostgreSQL does not answer" in refused.text
        assert not client.cookies


def test_a_log_in_ends_after_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded() as client:
        log_in(client)
        cookie = client.cookies["streampulse_session"]
    now = time.time()
    with guarded() as client:
        monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 8 * 86_400)
        assert client.get("/openapi.json", headers={"Cookie": f"streampulse_session={cookie}"}).status_code == 401


def test_counts_are_bounded_and_end_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(ApiSettings(port=1, address_limit_per_minute=1))
    monkeypatch.setattr("streampulse.api.guard.MAX_WINDOWS", 3)
    now = 1000.0
    monkeypatch.setattr("streampulse.api.guard.time.monotonic", lambda: now)

    def limited(who: str) -> bool:
        return access.limited({"path": "/"}, access.per_address, who) is not None

    assert [limited(who) for who in "aabcaad"] == [False, True, False, False, True, True, False]
    # The fourth caller took the place of the first one.
    assert [limited(who) for who in "cda"] == [True, True, False]
    now += 61
    assert [limited(who) for who in "cda"] == [False, False, False]


def test_guessing_is_limited_by_address() -> None:
    with guarded(address_limit_per_minute=5) as client:
        statuses = [client.get("/metrics", headers={"X-API-Key": f"guess-{n}"}).status_code for n in range(8)]
        assert statuses == [401] * 5 + [429] * 3
        # Guesses from an address do not lock out a client with a key at the same address.
        assert client.get("/openapi.json", headers={"X-API-Key": KEY}).status_code == 200
    with guarded() as client:
        assert [log_in(client, f"guess-{n}").status_code for n in range(12)] == [401] * 10 + [429] * 2
        assert log_in(client).status_code == 429


@pytest.mark.parametrize("path", ["/health", "/prometheus"])
@pytest.mark.parametrize(
    ("address", "let_in"),
    [
        ("203.0.113.9", False), ("10.1.2.3", True), ("127.0.0.1", True), ("::1", True), ("::ffff:10.0.0.1", True),
        ("2001:db8::1", False), ("testclient", False),
    ],
)  # fmt: skip
def test_health_and_scrape_need_no_key_and_are_private(path: str, address: str, let_in: bool) -> None:
    with guarded(address) as client:
        status = client.get(path, headers={"X-API-Key": KEY}).status_code
        assert (status != 403) is let_in
        assert client.get(path).status_code == status


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": None}, {"keys": ""}, {"keys": "short"}, {"keys": f"{KEY},short"}, {"cookie_secret": None},
        {"cookie_secret": "short"}, {"private_networks": "10.0.0.0/33"}, {"trusted_proxies": "all"},
    ],
)  # fmt: skip
def test_a_public_api_without_guard_rails_does_not_start(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"port": 1, "public": True, "keys": KEY, "cookie_secret": SECRET}
    ApiSettings(**good)
    with pytest.raises(ValidationError):
        ApiSettings(**{**good, **wrong})


def test_the_error_names_the_setting_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PORT": "1", "PUBLIC": "true", "KEYS": "short-secret"}.items():
        monkeypatch.setenv(f"STREAMPULSE_API_{name}", value)
    with pytest.raises(SettingsError, match=r"^STREAMPULSE_API_KEYS: each of 16 characters") as error:
        load(ApiSettings)
    assert "short-secret" not in str(error.value)


def test_headers_of_proxies_count_only_from_trusted_addresses() -> None:
    headers = {"X-Forwarded-For": "10.0.0.7", "X-Forwarded-Proto": "https"}
    with guarded() as client:
        assert client.get("/prometheus", headers=headers).status_code == 403
        assert "strict-transport-security" not in client.get("/login", headers=headers).headers
    with guarded(trusted_proxies="203.0.113.9/32") as client:
        assert client.get("/prometheus", headers=headers).status_code == 200
        assert client.get("/prometheus").status_code == 403
        assert "strict-transport-security" in client.get("/login", headers=headers).headers
        done = client.post("/login", data={"key": KEY}, headers=headers)
        assert "secure" in done.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("198.51.100.1, ::ffff:10.0.0.2", "198.51.100.1"),
        # A client can invent the entries before the last foreign hop.
        ("10.9.9.9, 198.51.100.1", "198.51.100.1"),
        ("198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("[2001:db8::1]:4711, 10.0.0.2", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        # A client that the proxy does not name is not the proxy.
        ("", "unknown"),
        ("unknown", "unknown"),
        ("unknown, 10.0.0.2", "unknown"),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_proxy(said: str, expected: str) -> None:
    headers = (b"x-forwarded-for", said.encode())
    for proxy in ("10.0.0.1", "::ffff:10.0.0.1"):
        assert networks.client(through_a_proxy(headers, proxy=proxy)) == expected


def test_other_headers_and_other_proxies_name_no_client() -> None:
    assert networks.client(through_a_proxy((b"forwarded", b"for=203.0.113.9"))) == "unknown"
    # The health checks of load balancers.
    assert networks.client(through_a_proxy()) == "10.0.0.1"
    assert networks.client(through_a_proxy((b"x-forwarded-for", b"198.51.100.1"), proxy="10.9.0.1")) == "10.9.0.1"
    for said, scheme in ((b"HTTPS, http", "https"), (b"http", "http"), (b"gopher", "http")):
        assert through_a_proxy((b"x-forwarded-proto", said))["scheme"] == scheme


def through_a_proxy(*headers: tuple[bytes, bytes], proxy: str = "10.0.0.1") -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.update(scope)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    scope = {"type": "http", "client": (proxy, 1), "scheme": "http", "headers": list(headers)}
    asyncio.run(TrustedProxies(app, ["10.0.0.0/24"])(scope, nothing, nothing))
    return seen


def test_a_household_is_an_address_or_a_64() -> None:
    assert household("203.0.113.9") == "203.0.113.9"
    assert household("2001:db8:1:2:3::4") == household("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert household("::ffff:203.0.113.9") == "203.0.113.9"


@pytest.mark.parametrize("length", ["16385", "99999999999999999999", "-1", "x", "1e3"])
def test_large_bodies_are_refused_by_their_announcement(length: str) -> None:
    with guarded(public=False, keys=None, cookie_secret=None) as client:
        refused = client.post("/metrics", headers={"Content-Length": length}, content=b"x")
        assert (refused.status_code, refused.headers["connection"]) == (413, "close")


def test_long_queries_are_refused() -> None:
    with guarded(public=False, keys=None, cookie_secret=None) as client:
        refused = client.get("/metrics?" + "a&" * 4097)
        assert (refused.status_code, refused.headers["connection"]) == (414, "close")
        assert refused.json() == {"error": "a request's query may have 8192 bytes"}
        # The longest useful query, and the longest query that is allowed.
        longest = "&".join(f"{name}={'%F0%9F%8E%A5' * 128}" for name in ("stream_id", "after"))
        assert client.get(f"/state?{longest}&limit=1000").status_code == 503
        named = client.get("/metrics?" + "a=&" * 2730 + "b")
        assert named.status_code == 422
        assert len(named.content) < 100_000


def test_a_log_in_reads_no_more_than_it_may() -> None:
    with guarded() as client:

        def endless() -> Iterator[bytes]:
            for _ in range(100):
                yield b"k" * 4096

        assert client.post("/login", content=endless()).status_code == 413
        assert client.post("/login", content=b"\xff\xfe&key=%ff%00").status_code == 401
        assert client.post("/login", content=b"&".join(b"a=1" for _ in range(50))).status_code == 401


def test_a_client_that_leaves_during_a_log_in_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with guarded() as client:
        sent: list[Any] = []

        async def leave() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"100")]
        scope = {
            "type": "http", "method": "POST", "path": "/login", "raw_path": b"/login", "query_string": b"",
            "headers": headers, "client": ("203.0.113.9", 5), "scheme": "http", "http_version": "1.1",
        }  # fmt: skip
        assert client.portal is not None
        client.portal.call(client.app, scope, leave, send)
        assert sent == []
    text = generate_latest().decode()
    assert 'method="POST",route="/login",status="499"' in text
    assert 'route="/login",status="500"' not in text
    assert "Traceback" not in caplog.text


def test_a_page_elsewhere_may_ask_with_a_key_and_read_why_it_was_refused() -> None:
    origin = {"Origin": "https://elsewhere.example"}
    first = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    both = "https://elsewhere.example, https://third.example"
    with guarded(cors_origins=both, rate_limit_per_minute=1) as client:
        # Browsers send a preflight request first, without the key.
        allowed = client.options("/metrics", headers=origin | first)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == origin["Origin"]
        assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
        assert client.options("/metrics", headers=first | {"Origin": "https://evil.example"}).status_code == 400
        refused = client.get("/metrics", headers=origin)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin["Origin"])
        with_key = origin | {"X-API-Key": KEY}
        assert client.get("/openapi.json", headers=with_key).headers["access-control-allow-origin"] == origin["Origin"]
        limited = client.get("/openapi.json", headers=with_key)
        assert (limited.status_code, limited.headers["access-control-allow-origin"]) == (429, origin["Origin"])
        assert "Retry-After" in limited.headers["access-control-expose-headers"]
    with guarded() as client:
        answer = client.get("/openapi.json", headers=with_key)
        assert not [name for name in answer.headers if name.startswith("access-")]


def test_each_log_in_and_each_key_has_a_count_of_its_own() -> None:
    with guarded(rate_limit_per_minute=3) as client:

        def asked(headers: dict[str, str]) -> list[int]:
            return [client.get("/openapi.json", headers=headers).status_code for _ in range(4)]

        # Two pages and a program, all with the same key.
        for _ in range(2):
            cookie = log_in(client).headers["set-cookie"].partition(";")[0]
            client.cookies.clear()
            assert asked({"Cookie": cookie}) == [200, 200, 200, 429]
        assert asked({"X-API-Key": KEY}) == [200, 200, 200, 429]
        assert asked({"X-API-Key": OTHER}) == [200, 200, 200, 429]
        refused = client.get("/openapi.json", headers={"X-API-Key": KEY})
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "more than 3 requests in a minute" in refused.json()["error"]


def test_every_answer_has_security_headers() -> None:
    with guarded() as client:
        for path in ("/", "/login", "/metrics", "/nowhere", "/assets/none"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert len(headers["x-request-id"]) == 16
            assert "server" not in headers


def test_the_log_has_a_name_for_the_key_and_not_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="streampulse.api.access")
    with guarded() as client:
        client.get("/openapi.json", headers={"X-API-Key": KEY})
        client.get("/openapi.json", headers={"X-API-Key": OTHER})
    names = [record.fields["user"] for record in caplog.records if record.name == "streampulse.api.access"]  # type: ignore[attr-defined]
    assert len(set(names)) == 2
    assert KEY not in caplog.text
    assert OTHER not in caplog.text


def test_private_networks_are_a_setting() -> None:
    with guarded(private_networks="203.0.113.0/24") as client:
        assert client.get("/prometheus").status_code == 200
    with guarded("10.0.0.1", private_networks="") as client:
        assert client.get("/prometheus").status_code == 403
