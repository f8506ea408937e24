"""What the API serves under load: requests a second, waiting times, freshness, readers of the event stream.

The load is wrk's (apt), a fixed number of connections for a fixed time, against one address. For comparison the same
load goes to the same rows through a plain pool in the same run: a query for each request, as it would be without
snapshots, served by the same gunicorn.

``python -m streampulse.ops.bench_api http://HOST:8000`` measures an API that runs; ``--plain http://HOST:8099`` adds
the comparison with :mod:`streampulse.api.plain_pool`, which is started on the API's host.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from streampulse.errors import OperatorError
from streampulse.ops.machines import tools

CONNECTIONS: Final = 64
SECONDS: Final = 8
READERS: Final = 1000
_WRK: Final = {"wrk": "wrk"}
_NUMBER: Final = re.compile(r"Requests/sec:\s+([0-9.]+)")
_P99: Final = re.compile(r"99%\s+([0-9.]+)(us|ms|s)\b")
_FAILED: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_IN_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Row(NamedTuple):
    """One figure.

    ``aim`` is what it should be, ``must`` what it has to be; both as the figure's own bound, upper or lower as the name
    says, and None where there is none.
    """

    name: str
    value: float
    unit: str
    aim: float | None
    must: float | None


class Load(NamedTuple):
    """What wrk saw: answers a second, the time in milliseconds within which 99 of 100 came, and answers not 2xx."""

    rate: float
    p99_ms: float
    failed: int


def measure(
    url: str,
    plain: str | None = None,
    seconds: int = SECONDS,
    say: Callable[[str], None] = lambda _text: None,
) -> list[Row]:
    """Return the figures of an API that runs.

    :param url: its address.
    :param plain: address of the plain pool for comparison; None for no comparison.
    :param seconds: how long each load lasts.
    :param say: told what is installed, where something is.
    :raises OperatorError: wrk is not there, or the API does not answer.
    """
    tools.ensure(_WRK, "measuring the API", say)
    url = url.rstrip("/")
    stream = _a_stream(url)
    latest = load(f"{url}/metrics/latest?limit=100", seconds)
    rows = [
        Row("api latest requests a second, at least", latest.rate, "1/s", 8000, None),
        Row("api latest p99, at most", latest.p99_ms, "ms", 20, None),
        Row("api answers that failed, at most", latest.failed, "", 0, 0),
    ]
    for name, path in {
        "history": f"/metrics/history?minutes=60&stream_id={quote(stream)}",
        "top": "/streams/top?minutes=10&by=donations_usd&n=5",
    }.items():
        seen = load(url + path, seconds)
        rows.append(Row(f"api {name} requests a second, at least", seen.rate, "1/s", 1000, None))
    rows.append(Row("api snapshot age, largest seen, at most", _largest_age(url, seconds), "s", 0.5, None))
    rows += readers(url, READERS, seconds)
    if plain is not None:
        alone = load(f"{plain.rstrip('/')}/metrics/latest?limit=100", seconds)
        rows.append(Row("api latest with a plain pool requests a second", alone.rate, "1/s", None, None))
        rows.append(Row("api latest ratio to a plain pool, at least", latest.rate / max(alone.rate, 1e-9), "", 5, None))
    return rows


def load(address: str, seconds: int, connections: int = CONNECTIONS) -> Load:
    """Put load on one address and return what wrk saw.

    :raises OperatorError: wrk failed; the text is its last line.
    """
    done = subprocess.run(  # noqa: S603 - a list made here, no shell
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", address],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    rate, p99 = _NUMBER.search(done.stdout), _P99.search(done.stdout)
    if done.returncode != 0 or rate is None or p99 is None:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise OperatorError(f"wrk could not measure {address}: {said[-1]}")
    failed = _FAILED.search(done.stdout)
    return Load(float(rate[1]), float(p99[1]) * _IN_MS[p99[2]], int(failed[1]) if failed else 0)


def readers(url: str, count: int, seconds: int) -> list[Row]:
    """Return the figures of many readers of /live at once.

    :param count: readers.
    :param seconds: how long they read.
    :raises OperatorError: fewer files may be open here than are needed.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 200:
        raise OperatorError(f"{count} readers need as many open files and {hard} are allowed: ulimit -Hn {count + 200}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count + 200, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    before = _readings(url)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((host, port), timeout=10)) for _ in range(count)]
        for reader in held:
            reader.sendall(b"GET /live HTTP/1.1\r\nHost: bench\r\n\r\n")
        poll = select.epoll()
        stack.callback(poll.close)
        for reader in held:
            poll.register(reader, select.EPOLLIN)
        by_number = {reader.fileno(): reader for reader in held}
        heard: dict[int, int] = {}
        while time.monotonic() - started < seconds:
            for number, _ in poll.poll(0.2):
                piece = by_number[number].recv(262_144)
                if not piece:
                    poll.unregister(number)
                heard[number] = heard.get(number, 0) + piece.count(b"\nevent: ") + piece.count(b"\nid: ")
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:  # noqa: S310 - the operator's own address
            answer.read()
        spent = time.monotonic() - started
        rate = (_readings(url) - before) / spent
    served = sum(1 for events in heard.values() if events >= 2)  # a first event and one more
    return [
        Row(f"api /live readers of {count} that got news, at least", served, "", count, None),
        Row("api readings of the tables a second with them, over all workers", rate, "1/s", None, None),
    ]


def _a_stream(url: str) -> str:
    try:
        with urllib.request.urlopen(f"{url}/metrics?limit=1", timeout=10) as answer:  # noqa: S310 - as above
            rows = json.load(answer)["rows"]
    except (OSError, ValueError, KeyError) as error:
        raise OperatorError(f"{url}/metrics does not answer ({error}): inv up") from None
    if not rows:
        raise OperatorError(f"{url}/metrics has no rows: is the generator running? inv status")
    return str(rows[0]["stream_id"])


def _largest_age(url: str, seconds: int) -> float:
    """Return the largest age of an answer, as its header says, over some seconds."""
    ages = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with urllib.request.urlopen(f"{url}/metrics/latest?limit=1", timeout=10) as answer:  # noqa: S310 - as above
            ages.append(float(answer.headers["X-Snapshot-Age"]))
        time.sleep(0.02)
    return max(ages)


def _readings(url: str) -> float:
    with urllib.request.urlopen(f"{url}/prometheus", timeout=10) as answer:  # noqa: S310 - as above
        text = answer.read().decode()
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("streampulse_api_snapshot_readings_total{")
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the figures of an API that runs."""
    parser = argparse.ArgumentParser(prog="python -m streampulse.ops.bench_api", description=__doc__)
    parser.add_argument("url", help="address of the API")
    parser.add_argument("--plain", metavar="URL", help="compare with a plain pool at this address")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="how long each load lasts (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        for row in measure(chosen.url, chosen.plain, chosen.seconds):
            aim = "" if row.aim is None else f"  (aim {row.aim:g})"
            print(f"{row.name:70} {row.value:12.3f} {row.unit}{aim}")  # noqa: T201 - its output
    except OperatorError as error:
        print(f"bench_api: {error}", file=sys.stderr)  # noqa: T201 - the operator's line
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
