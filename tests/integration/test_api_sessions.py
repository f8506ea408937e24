"""Log-ins of a public API with several workers and a database: a log-out ends the cookie and every copy of it."""

import contextlib
import itertools
import time
from collections.abc import Iterator

import httpx
import psycopg2.errors
import pytest
from conftest import Database, own_database
from gunicorn_server import running
from postgres import READER

pytestmark = pytest.mark.postgres

KEY = "first-key-0123456789"


def test_a_cookie_copied_before_the_log_out_is_refused_afterwards(database: Database, migrated_template: str) -> None:
    with running(database, workers=2, public=True, keys=KEY, cookie_secret="s" * 32) as server:

        def status(cookie: str) -> int:
            # A new connection each time, so that both workers are asked.
            return httpx.get(server.url + "/metrics", headers={"Cookie": cookie}, timeout=10).status_code

        @contextlib.contextmanager
        def events(cookie: str) -> Iterator[Iterator[str]]:
            with httpx.stream("GET", server.url + "/live", headers={"Cookie": cookie}, timeout=10) as answer:
                lines = answer.iter_lines()
                assert next(lines).startswith("retry: ")
                yield lines

        cookies = []
        for _ in range(2):
            done = httpx.post(server.url + "/login", data={"key": KEY}, timeout=10)
            assert (done.status_code, done.headers["location"]) == (303, "/")
            cookies.append(done.headers["set-cookie"].partition(";")[0])
        ended, other = cookies
        assert status(ended) == status(other) == 200
        with events(ended) as ended_lines, events(other) as other_lines:
            out = httpx.post(server.url + "/logout", headers={"Cookie": ended}, timeout=10)
            deadline = time.monotonic() + 5
            # The stream of the ended log-in ends; there are signs of life at least every two seconds.
            assert "event: reconnect" in list(itertools.takewhile(lambda _: time.monotonic() < deadline, ended_lines))
            assert time.monotonic() < deadline
            deadline = time.monotonic() + 3
            assert "event: reconnect" not in itertools.takewhile(lambda _: time.monotonic() < deadline, other_lines)
            assert time.monotonic() >= deadline
        assert (out.status_code, out.headers["location"]) == (303, "/login")
        assert "expires=Thu, 01 Jan 1970" in out.headers["set-cookie"]
        deadline = time.monotonic() + 5
        # The other worker learns it at its next reading.
        while {status(ended) for _ in range(10)} != {401}:
            assert time.monotonic() < deadline
        assert {status(other) for _ in range(10)} == {200}
    with running(database, workers=1, public=True, keys=KEY, cookie_secret="s" * 32) as server:
        assert httpx.get(server.url + "/metrics", headers={"Cookie": other}, timeout=10).status_code == 200
        assert httpx.get(server.url + "/metrics", headers={"Cookie": ended}, timeout=10).status_code == 401
    # As after `inv reset`: the same cookie secret, another database.
    with own_database(database.server, migrated_template) as made_again:
        made_again.execute("UPDATE api_session_epoch SET id = gen_random_uuid()")
        with running(made_again, workers=1, public=True, keys=KEY, cookie_secret="s" * 32) as server:
            assert httpx.get(server.url + "/metrics", headers={"Cookie": other}, timeout=10).status_code == 401


def test_the_reader_may_note_ended_log_ins_and_nothing_else(database: Database) -> None:
    with contextlib.closing(database.server.connect(READER, database.name)) as connection:
        with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("INSERT INTO api_ended_sessions VALUES ('x', now())")
        with connection.cursor() as cursor:
            cursor.execute("SET ROLE streampulse_sessions")
            cursor.execute("INSERT INTO api_ended_sessions VALUES ('x', now())")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute("DELETE FROM stream_presence")
