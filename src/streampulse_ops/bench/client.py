"""Clients of the API: many parallel requests, many readers of the event stream, the age of responses.

Runs on the control machine. wrk (apt) makes the load against one address for a fixed time: one thread and a fixed
number of connections. Each sends its next request on a response, or after a pause.
"""

import contextlib
import re
import resource
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from streampulse.core import http
from streampulse.core.errors import OperatorError
from streampulse_ops.command import ended
from streampulse_ops.machines import Report, tools

CONNECTIONS: Final = 64
_WRK: Final = {"wrk": "wrk"}
_NUMBER: Final = re.compile(r"Requests/sec:\s+([0-9.]+)")
_PERCENTILE: Final = re.compile(r"^\s+(50|99)%\s+([0-9.]+)(us|ms|s)\b", re.MULTILINE)
_FAILED: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_CUT: Final = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_IN_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class Load(NamedTuple):
    """The result of wrk.

    ``rate`` is in responses per second, ``p50`` and ``p99`` are in seconds, ``failed`` counts responses other than 2xx
    and requests without a response.
    """

    rate: float
    p50: float
    p99: float
    failed: int


class Audience(NamedTuple):
    """Readers of /live: their number, the number that received updates, and table reads per second of all workers."""

    readers: int
    served: int
    readings: float


def ensure_wrk(report: Report) -> None:
    """Install wrk if it is missing.

    :raises OperatorError: it cannot be installed from here; the text has the command.
    """
    tools.ensure(_WRK, "measuring the API", report)


def load(address: str, seconds: int, connections: int = CONNECTIONS, pause: int = 0) -> Load:
    """Put load on one address and return the result of wrk.

    :param pause: pause of each connection between a response and the next request, in milliseconds.
    :raises OperatorError: wrk failed (the text has its last line), or there was no response.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"function delay() return {pause} end\n")
        script.flush()
        waiting = ["-s", script.name] if pause else []
        done = ended(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *waiting, "--latency", address])
    rate = _NUMBER.search(done.stdout)
    times = {name: float(value) * _IN_SECONDS[unit] for name, value, unit in _PERCENTILE.findall(done.stdout)}
    if done.returncode != 0 or rate is None or set(times) != {"50", "99"}:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise OperatorError(f"wrk could not measure {address}: {said[-1]}")
    if float(rate[1]) == 0:
        raise OperatorError(f"{address} answered nothing within {seconds} s")
    failed, cut = _FAILED.search(done.stdout), _CUT.search(done.stdout)
    missing = (int(failed[1]) if failed else 0) + (sum(map(int, cut.groups())) if cut else 0)
    return Load(float(rate[1]), times["50"], times["99"], missing)


def readers(url: str, count: int, seconds: float) -> Audience:
    """Connect many readers to /live at once.

    :raises OperatorError: the API does not answer, or the limit of open files is too low.
    """
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    with _files(count + 200), contextlib.ExitStack() as stack:
        before, started = _readings(url), time.monotonic()
        poll = select.epoll()
        stack.callback(poll.close)
        by_number: dict[int, socket.socket] = {}
        for _ in range(count):
            try:
                reader = stack.enter_context(socket.create_connection((host, port), timeout=10))
                reader.sendall(b"GET /live HTTP/1.1\r\nHost: bench\r\n\r\n")
            except OSError as error:
                raise OperatorError(f"{url}/live does not answer reader {len(by_number) + 1}: {error}") from None
            poll.register(reader, select.EPOLLIN)
            by_number[reader.fileno()] = reader
        heard = dict.fromkeys(by_number, 0)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for number, _ in poll.poll(0.2):
                piece = by_number[number].recv(262_144)
                if not piece:
                    poll.unregister(number)
                heard[number] += piece.count(b"event: update\n")
        rate = (_readings(url) - before) / (time.monotonic() - started)
    # Each reader first receives the whole state; later events are updates.
    return Audience(count, sum(events >= 1 for events in heard.values()), rate)


def largest_age(url: str, seconds: float) -> float:
    """Return the largest age of a response over some seconds, from its header, in seconds.

    :raises OperatorError: the API does not answer.
    """
    ages = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        ages.append(float(_get(f"{url}/metrics/latest?limit=1").headers["X-Snapshot-Age"]))
        time.sleep(0.02)
    return max(ages)


def busiest_stream(url: str) -> str | None:
    """Return the stream with the most chat messages, None without one.

    :raises OperatorError: the API does not answer.
    """
    rows = _get(f"{url}/streams/top?by=chat_messages&n=1").json()["rows"]
    return str(rows[0]["stream_id"]) if rows else None


def answers(url: str) -> bool:
    """Return whether an address answers with a 2xx status."""
    try:
        _get(url)
    except OperatorError:
        return False
    return True


def _readings(url: str) -> float:
    return sum(
        float(line.rpartition(" ")[2])
        for line in _get(f"{url}/prometheus").text.splitlines()
        if line.startswith("streampulse_api_snapshot_readings_total{")
    )


def _get(address: str) -> httpx.Response:
    try:
        answer = http.get(address, seconds=30)
    except http.NoAnswer as error:
        raise OperatorError(f"{address} does not answer: {error}") from None
    if not answer.is_success:
        raise OperatorError(f"{address} does not answer: {answer.status_code} {answer.reason_phrase}")
    return answer


@contextlib.contextmanager
def _files(count: int) -> Iterator[None]:
    """Raise the limit of open files for the body.

    :raises OperatorError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise OperatorError(f"so many readers need {count} open files and {hard} are allowed: ulimit -Hn {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
