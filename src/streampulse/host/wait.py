"""``streampulse wait``: return when a service answers in its own protocol, to order the start of units."""

import argparse
import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx

from streampulse.core import http
from streampulse.core.errors import OperatorError, UsageError, one_line

# The settings library imports slower than all the rest here, so only probes that need it import it.

_PAUSE_SECONDS = 0.25
_ANSWER_SECONDS = 5.0
_USER = "STREAMPULSE_MONITORING_USER"
_PASSWORD = "STREAMPULSE_MONITORING_PASSWORD"  # noqa: S105 - the variable's name


class _NotYet(Exception):  # noqa: N818 - a state, not an error
    """The service is not ready; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse wait``."""
    parser.add_argument("service", choices=sorted(_PROBES), help="what to wait for")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="default: %(default)g")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="spark: alive workers at least")
    parser.add_argument("--worker", default="", metavar="ADDRESS", help="spark: the worker of this host is alive")
    parser.add_argument("--reconciled", action="store_true", help="spark: workers have what the master books")
    parser.add_argument(
        "--url", default="", metavar="URL", help="the page that says that a service of monitoring is ready"
    )
    parser.add_argument("--pid", type=int, metavar="PID", help="the service's process: stop waiting when it has ended")


def run(args: argparse.Namespace) -> int:
    """Wait for a service.

    :raises OperatorError: it did not answer in time; the text holds the last observation.
    """
    probe = _PROBES[args.service](args)
    deadline = time.monotonic() + args.timeout
    while True:
        try:
            print(f"{args.service}: {probe()}")  # noqa: T201 - the command's answer
        except _NotYet as seen:
            if args.pid is not None and _ended(args.pid):
                raise OperatorError(f"{args.service} ended while it was starting: {seen}") from None
            if time.monotonic() >= deadline:
                raise OperatorError(
                    f"{args.service} did not answer within {args.timeout:g} s: {seen}. "
                    f"Look at its log: inv logs {_LOGS.get(args.service, args.service)}"
                ) from None
            time.sleep(_PAUSE_SECONDS)
        else:
            return 0


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _kafka(_: argparse.Namespace) -> Callable[[], str]:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    from streampulse.core import kafka
    from streampulse.core.settings import KafkaSettings, load

    kafka.silence()
    settings = load(KafkaSettings)

    def probe() -> str:
        try:
            admin = KafkaAdminClient(
                **settings.client_arguments("streampulse-wait"), request_timeout_ms=5_000, bootstrap_timeout_ms=2_000
            )
            try:
                cluster = admin.describe_cluster()
            finally:
                admin.close()
        except (KafkaError, OSError) as error:
            raise _NotYet(one_line(error)) from None
        brokers = cluster.get("brokers") or []
        if not brokers:
            raise _NotYet("no broker is registered")
        return f"{len(brokers)} broker{'s' * (len(brokers) != 1)} at {settings.bootstrap_servers}"

    return probe


def _postgres(_: argparse.Namespace) -> Callable[[], str]:
    import psycopg2

    from streampulse.core import postgres
    from streampulse.core.settings import PostgresSettings, load

    settings = load(PostgresSettings)

    def probe() -> str:
        statement = "SELECT current_setting('server_version'), pg_is_in_recovery()"
        try:
            ((version, recovering),) = postgres.query(
                settings, "streampulse-wait", statement, statement_seconds=_ANSWER_SECONDS
            )
        except psycopg2.OperationalError as error:
            raise _NotYet(one_line(error)) from None
        if recovering:
            raise _NotYet("the server is recovering and takes no writes")
        return f"PostgreSQL {version.split()[0]} at {settings.host}:{settings.port}"

    return probe


def _spark(args: argparse.Namespace) -> Callable[[], str]:
    address = os.environ.get("STREAMPULSE_SPARK_MASTER_UI")
    if not address:
        raise OperatorError(
            "STREAMPULSE_SPARK_MASTER_UI is not set (the base role sets it in /etc/streampulse/spark.env)"
        )

    def probe() -> str:
        state = _spark_state(address)
        workers = [worker for worker in state.get("workers", []) if worker.get("state") == "ALIVE"]
        hosts = [worker.get("host") for worker in workers]
        alive = len(hosts)
        if state.get("status") != "ALIVE":
            raise _NotYet(f"the master is {state.get('status')}")
        if alive < args.workers:
            raise _NotYet(f"{alive} of {args.workers} workers are registered")
        if args.worker and args.worker not in hosts:
            raise _NotYet(f"the worker of {args.worker} is not registered")
        if args.reconciled:
            _reconcile(address, workers)
        return f"master alive, {alive} worker{'s' * (alive != 1)}"

    return probe


def _spark_state(address: str) -> dict[str, Any]:
    """Return the state that Spark's master, or a worker, shows at its web address."""
    try:
        answer = http.get(f"{address}/json/", seconds=_ANSWER_SECONDS)
        if not answer.is_success:
            raise _NotYet(f"{address} answers {answer.status_code}")
        state: dict[str, Any] = answer.json()
    except (OSError, ValueError) as error:
        raise _NotYet(one_line(error)) from None
    return state


def _reconcile(address: str, workers: Iterable[Mapping[str, str]]) -> None:
    """Compare the memory that Spark's master books for executors with the executors that its alive workers have.

    Spark 4.2: a worker without a master tries to register every ten seconds. If one of these tries reaches a new master
    before that has recovered, the master starts a second executor of the same number and books both. Both end, the
    master frees one, and the application gets no other until a master recovers once more.

    :raises _NotYet: the master books more than there is.
    """
    # A worker has told the master of its executors before it answers here, so the workers are asked first.
    has = {}
    for worker in workers:
        # Without an answer nothing is known of a worker, and a restart of the master would not help.
        with contextlib.suppress(_NotYet):
            executors = _spark_state(worker["webuiaddress"])["executors"]
            has[worker["id"]] = sum(executor["memory"] for executor in executors)
    for worker in _spark_state(address)["workers"]:
        host, books, there = worker["host"], worker["memoryused"], has.get(worker["id"], math.inf)
        if books > there:
            raise _NotYet(f"the master books {books} MiB for executors of {host}, which have {there} MiB")


def _page(args: argparse.Namespace) -> Callable[[], str]:
    if not args.url:
        raise OperatorError(f"streampulse wait {args.service} needs --url URL, the page that says that it is ready")
    if not _is_web_address(args.url):
        raise UsageError(f"--url {args.url} is no address of a page: write http://HOST:PORT/PATH, or https://")

    def probe() -> str:
        try:
            answer = http.get(args.url, seconds=_ANSWER_SECONDS, login=_login())
        except http.NoAnswer as error:
            raise _NotYet(one_line(error)) from None
        except ValueError as error:
            raise UsageError(f"--url {args.url} is no address of a page: {one_line(error)}") from None
        if answer.is_success:
            return f"ready at {args.url} ({answer.status_code})"
        # A server that asks for a password is up. The unit of an exporter does not have the password.
        if answer.status_code == httpx.codes.UNAUTHORIZED and not os.environ.get(_PASSWORD):
            return f"answers at {args.url} ({answer.status_code})"
        raise _NotYet(f"{args.url} answers {answer.status_code}")

    return probe


def _targets(_: argparse.Namespace) -> Callable[[], str]:
    address = os.environ.get("STREAMPULSE_MONITORING_PROMETHEUS_URL")
    if not address:
        raise OperatorError(
            "STREAMPULSE_MONITORING_PROMETHEUS_URL is not set (inv up --full writes /etc/streampulse/monitoring.env)"
        )
    if not _is_web_address(address):
        raise OperatorError(
            f"STREAMPULSE_MONITORING_PROMETHEUS_URL is {address}, which is no address: it has to be "
            "http://HOST:PORT, or https:// (inv up --full writes /etc/streampulse/monitoring.env)"
        )

    def probe() -> str:
        try:
            answer = http.get(f"{address}/api/v1/targets?state=active", seconds=_ANSWER_SECONDS, login=_login())
            answer.raise_for_status()
            targets = answer.json()["data"]["activeTargets"]
        except (OSError, httpx.HTTPStatusError, ValueError, LookupError) as error:
            raise _NotYet(f"Prometheus does not say ({one_line(error)})") from None
        missing = [
            f"{target['labels']['job']} on {target['labels'].get('host', target['labels']['instance'])} "
            f"({target['lastError'] or 'not read yet'})"
            for target in targets
            if target["health"] != "up"
        ]
        if missing or not targets:
            raise _NotYet(f"Prometheus does not read {', '.join(missing) or 'anything'}")
        return f"Prometheus reads all {len(targets)}"

    return probe


def _is_web_address(text: str) -> bool:
    """Tell whether a text is a host address for HTTP."""
    return re.match(r"https?://[^/\s]", text) is not None


def _login() -> tuple[str, str] | None:
    """Return the user and the password of monitoring, if set."""
    user, password = os.environ.get(_USER), os.environ.get(_PASSWORD)
    return (user, password) if user and password else None


_PROBES: dict[str, Callable[[argparse.Namespace], Callable[[], str]]] = {
    "alertmanager": _page,
    "grafana": _page,
    "kafka": _kafka,
    "node-exporter": _page,
    "postgres": _postgres,
    "postgres-exporter": _page,
    "prometheus": _page,
    "spark": _spark,
    "targets": _targets,
}
#: The service whose log helps, if it is not the awaited one.
_LOGS = {"spark": "spark-master", "targets": "prometheus"}
