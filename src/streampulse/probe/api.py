"""The API as its users reach it: over HTTP, by any of its hosts, with a connection of its own for each request."""

from __future__ import annotations

import http.client
import itertools
import json
import time
import urllib.parse
import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from streampulse.probe import metrics
from streampulse.probe.part import Voice, line

Row = dict[str, Any]

_MAX_ANSWER_BYTES: Final = 1024 * 1024
_PATH: Final = "/metrics/latest?limit=1"


class Rows(NamedTuple):
    """What a path answered with, and how long the host that did took for it, connecting included, in seconds."""

    rows: list[Row]
    seconds: float


class Unanswered(Exception):  # noqa: N818 - a finding
    """Nothing came back, or not in time, from any host."""


class Failed(Exception):  # noqa: N818 - a finding
    """Something else came back than 200 with rows.

    :param seconds: how long that took, connecting included.
    """

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class Refused(Failed):
    """The API did not let the request in, or does not know it: 4xx. It works, and says that the asker is wrong."""


class _Host:
    """One host of the API.

    :param url: its address, ``http://HOST:PORT``.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._secure = parts.scheme == "https"
        self._name = parts.hostname or ""
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self.url = url

    def get(self, path: str, headers: dict[str, str], timeout: float) -> tuple[int, str, bytes]:
        """Return the status, its reason and the body.

        :raises OSError: it does not answer, or what it answers is not HTTP (``http.client.HTTPException``).
        """
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._name, self._port, timeout=timeout)
        try:
            connection.request("GET", self._prefix + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.reason, answer.read(_MAX_ANSWER_BYTES)
        finally:
            connection.close()


class Api:
    """Asks the API, each time another one of its hosts first; where that does not answer, the next.

    As people do behind a load balancer: as long as one host answers, they are served. That a host is away, its own
    alert says.

    :param urls: addresses of the hosts, ``http://HOST:PORT``.
    :param key: what lets a request in where the API asks for a key.
    :param timeout: how long connecting to one host, and each wait for a part of its answer, may take, in seconds.
    """

    def __init__(self, urls: Sequence[str], key: str | None, timeout: float) -> None:
        self._hosts = [_Host(url) for url in urls]
        self._turns = itertools.count()
        self._headers = {"User-Agent": "streampulse-probe", "Accept": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = timeout

    def rows(self, path: str, request_id: str | None = None) -> Rows:
        """Return the rows that a path answers with.

        :param request_id: by which the request can be found in the API's log.
        :raises Unanswered: nothing came back in time, from any host.
        :raises Refused: what came back is 4xx.
        :raises Failed: what came back is anything else but 200 with rows.
        """
        first = next(self._turns) % len(self._hosts)
        headers = {**self._headers, "X-Request-ID": request_id or f"probe-{uuid.uuid4()}"}
        causes = []
        for host in self._hosts[first:] + self._hosts[:first]:
            begun = time.monotonic()
            try:
                status, reason, body = host.get(path, headers, self._timeout)
            except (OSError, http.client.HTTPException) as error:
                causes.append(f"{host.url}: {line(error)}" if len(self._hosts) > 1 else line(error))
                continue
            return _read(status, reason, body, time.monotonic() - begun)
        raise Unanswered("; ".join(causes))


def _read(status: int, reason: str, body: bytes, seconds: float) -> Rows:
    if status != http.HTTPStatus.OK:
        text = f"{status} {reason}"
        raise Refused(text, seconds) if 400 <= status < 500 else Failed(text, seconds)
    try:
        rows = json.loads(body)["rows"]
    except (ValueError, KeyError, TypeError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Failed("200 without rows", seconds)
    return Rows(rows, seconds)


class Requests:
    """Asks for the newest rows every few seconds and counts what came of it.

    :param api: which API.
    :param interval: seconds between the starts of two requests.
    """

    def __init__(self, api: Api, interval: float) -> None:
        self._api = api
        self._interval = interval
        self._voice = Voice("the API")

    def step(self) -> float:
        """Ask once; return after how many seconds to ask again."""
        started = time.monotonic()
        seconds: float | None = None
        try:
            seconds = self._api.rows(_PATH).seconds
        except Unanswered as error:
            outcome = "unanswered"
            self._voice.wrong(str(error))
        except Refused as error:
            # A key of before, or too many requests: our doing and no failure of the API's. What the probe cannot read
            # back is told all the same, as an event that nobody knows about.
            outcome, seconds = "refused", error.seconds
            self._voice.wrong(str(error))
        except Failed as error:
            outcome, seconds = "error", error.seconds
            self._voice.wrong(str(error))
        else:
            outcome = "ok"
            self._voice.well()
        metrics.API_REQUESTS.labels(outcome).inc()
        if seconds is not None:
            metrics.API_SECONDS.observe(seconds)
        return max(0.0, self._interval - (time.monotonic() - started))
