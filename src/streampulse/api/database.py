"""PostgreSQL behind bounds: a fixed number of connections, a fixed number of requests that wait, a limit on every wait.

Queries run on a few threads of their own, each with its own connection, never on the event loop. When the server is
away, requests fail within milliseconds or seconds and say why; the first one after its return succeeds.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from prometheus_client import Counter, Gauge
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name

from streampulse.core.settings import ApiSettings, PostgresSettings

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_CONNECT_TIMEOUT_SECONDS: Final = 2
# Requests that may wait for each connection; more are refused at once rather than after a long wait.
_WAITING_PER_CONNECTION: Final = 16
# After a failed connect no request connects for this long, which spares a server that is starting.
_REST_SECONDS: Final = 0.5
RETRY_AFTER_SECONDS: Final = 1

FAILURES = Counter(
    "streampulse_api_database_failures", "Requests that the database could not answer, by cause.", ["cause"]
)
POOL_SIZE = Gauge(
    "streampulse_api_pool_size", "Connections for queries at most, over all workers.", multiprocess_mode="livesum"
)
POOL_BUSY = Gauge(
    "streampulse_api_pool_busy", "Connections that run a query, over all workers.", multiprocess_mode="livesum"
)
POOL_WAITING = Gauge(
    "streampulse_api_pool_waiting", "Queries that wait for a connection, over all workers.", multiprocess_mode="livesum"
)


class Unavailable(Exception):  # noqa: N818 - the HTTP status' own word
    """The database cannot answer now; the text says why. ``cause`` is one of a few fixed words, for the metric."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class Database:
    """Runs read-only queries for one worker process.

    :param postgres: the server, and the reading role.
    :param api: size of the pool and limit of a statement.
    """

    def __init__(self, postgres: PostgresSettings, api: ApiSettings) -> None:
        self._statement_timeout_ms = api.statement_timeout_ms
        options = {
            "statement_timeout": f"{api.statement_timeout_ms}ms",
            "idle_in_transaction_session_timeout": "10s",
            "default_transaction_read_only": "on",
            # Several statements of one request see the same state of the tables.
            "default_transaction_isolation": r"repeatable\ read",
            "timezone": "UTC",
        }
        self._arguments: dict[str, Any] = {
            **postgres.connection_arguments("streampulse-api"),
            "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
            "tcp_user_timeout": 5_000,
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        }
        self._local = threading.local()
        self._executor = ThreadPoolExecutor(api.pool_size, thread_name_prefix="database")
        # Health has a connection of its own, so that it does not wait behind slow queries.
        self._health_executor = ThreadPoolExecutor(1, thread_name_prefix="database-health")
        #: Time limit of every query, connecting included, in seconds.
        self.deadline_seconds = _CONNECT_TIMEOUT_SECONDS + api.statement_timeout_ms / 1000 + 1
        self._lock = threading.Lock()
        self._limit = {
            self._executor: api.pool_size * (1 + _WAITING_PER_CONNECTION),
            self._health_executor: 1 + _WAITING_PER_CONNECTION,
        }
        self._under_way = dict.fromkeys(self._limit, 0)
        self._down_until = 0.0
        self._down_error: Unavailable | None = None
        self._checking: asyncio.Future[float] | None = None
        #: Since when the server has not answered; None while it does.
        self.down_since: datetime | None = None
        self._pool_size = api.pool_size
        POOL_SIZE.set(api.pool_size)

    async def run(self, query: Callable[[Cursor], Result], seconds: float | None = None) -> Result:
        """Run a query in a transaction of its own and return its result.

        :param seconds: time limit of each of its statements, in place of the setting's.
        :raises Unavailable: the server does not answer, the query took too long, or too many requests wait already.
        """
        if seconds is None:
            return await self._run(self._executor, query, self.deadline_seconds)

        def limited(cursor: Cursor) -> Result:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (f"{seconds:g}s",))
            try:
                return query(cursor)
            except psycopg2.errors.QueryCanceled:
                raise _too_slow(seconds * 1000) from None

        return await self._run(self._executor, limited, seconds + _CONNECT_TIMEOUT_SECONDS + 1)

    async def check(self) -> float:
        """Ask the server whether it answers, and return by how many seconds the event clock is ahead of its clock.

        It is 0 where there was no event yet.

        :raises Unavailable: it does not; the text says why.
        """
        # Requests share a check that is under way, so many of them do not make a healthy server look busy.
        if self._checking is None or self._checking.done():
            self._checking = asyncio.ensure_future(self._run(self._health_executor, _ask, self.deadline_seconds))
            self._checking.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._checking)

    def call(self, query: Callable[[Cursor], Result]) -> Result:
        """Run a query on the calling thread, over this thread's connection. Note since when the server does not answer.

        :raises Unavailable: as for :meth:`run`.
        """
        try:
            result = self._call(query)
        except Unavailable as error:
            if error.cause != "schema" and self.down_since is None:
                self.down_since = datetime.now(UTC)
            raise
        self.down_since = None
        return result

    def forget(self) -> None:
        """Close the calling thread's connection."""
        connection, self._local.connection = getattr(self._local, "connection", None), None
        if connection is not None:
            with contextlib.suppress(psycopg2.Error):
                connection.close()

    def close(self) -> None:
        """Take no more queries; those under way end by themselves."""
        for executor in self._limit:
            executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, executor: ThreadPoolExecutor, query: Callable[[Cursor], Result], deadline: float) -> Result:
        try:
            with self._lock:
                if executor is self._executor and self._down_error and time.monotonic() < self._down_until:
                    raise Unavailable(self._down_error.cause, str(self._down_error))
                if self._under_way[executor] >= self._limit[executor]:
                    raise Unavailable("busy", "too many requests are waiting for the database")
                self._under_way[executor] += 1
                self._show()
            future = executor.submit(self.call, query)
            future.add_done_callback(lambda done: self._ended(executor, done))
            try:
                return await asyncio.wait_for(asyncio.wrap_future(future), deadline)
            except TimeoutError:
                self.down_since = self.down_since or datetime.now(UTC)
                raise Unavailable("timeout", f"PostgreSQL did not answer within {deadline:g} s") from None
        except Unavailable as error:
            FAILURES.labels(error.cause).inc()
            raise

    def _ended(self, executor: ThreadPoolExecutor, done: Future[Any]) -> None:
        with self._lock:
            self._under_way[executor] -= 1
            self._show()
        if not done.cancelled():
            done.exception()  # retrieved, in case the request gave up waiting

    def _show(self) -> None:
        under_way = self._under_way[self._executor]
        POOL_BUSY.set(min(under_way, self._pool_size))
        POOL_WAITING.set(max(0, under_way - self._pool_size))

    def _call(self, query: Callable[[Cursor], Result]) -> Result:
        """Run a query on this thread's connection; once more on a new one if the old one turns out to be dead."""
        connection = getattr(self._local, "connection", None)
        try:
            if connection is not None and connection.closed == 0:
                try:
                    return _transaction(connection, query)
                except psycopg2.errors.QueryCanceled:
                    raise
                except (psycopg2.OperationalError, psycopg2.InterfaceError):
                    self.forget()
            return _transaction(self._connect(), query)
        except psycopg2.errors.QueryCanceled:
            self.forget()
            raise _too_slow(self._statement_timeout_ms) from None
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            self.forget()
            raise _lost(error) from None
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.InsufficientPrivilege) as error:
            raise Unavailable("schema", f"the schema is not ready ({_last_words(error)})") from None

    def _connect(self) -> psycopg2.extensions.connection:
        try:
            connection: psycopg2.extensions.connection = psycopg2.connect(**self._arguments)
        except psycopg2.OperationalError as error:
            unavailable = _lost(error)
            with self._lock:
                self._down_until = time.monotonic() + _REST_SECONDS
                first = self._down_error is None
                self._down_error = unavailable
            if first:
                log.warning("PostgreSQL is away", extra={"fields": {"error": unavailable}})
            raise unavailable from None
        with self._lock:
            again, self._down_error = self._down_error is not None, None
        if again:
            log.info("PostgreSQL is back")
        self._local.connection = connection
        return connection


def _transaction(connection: psycopg2.extensions.connection, query: Callable[[Cursor], Result]) -> Result:
    with connection, connection.cursor() as cursor:
        return query(cursor)


def _too_slow(milliseconds: float) -> Unavailable:
    return Unavailable("timeout", f"the query took longer than {milliseconds:g} ms")


def _ask(cursor: Cursor) -> float:
    cursor.execute("SELECT coalesce(extract(epoch FROM max(clock) - now()), 0)::float8 FROM event_clock")
    ((ahead,),) = cursor.fetchall()
    return float(ahead)


def _lost(error: psycopg2.Error) -> Unavailable:
    return Unavailable("connection", f"PostgreSQL does not answer: {_last_words(error)}")


def _last_words(error: psycopg2.Error) -> str:
    """Return the cause without the address and the names that libpq puts before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition("failed: ")[2].removeprefix("FATAL: ").strip()
