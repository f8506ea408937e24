"""Requests to any of the API's hosts, each over a new connection."""

import itertools
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import httpx

from streampulse.core import http
from streampulse.core.errors import one_line
from streampulse.probe import metrics
from streampulse.probe.part import Voice

Row = dict[str, Any]

_PATH: Final = "/metrics/latest?limit=1"


class Rows(NamedTuple):
    """The rows of a response, and the seconds that the host took for it, connecting included."""

    rows: list[Row]
    seconds: float


class Unanswered(Exception):  # noqa: N818 - a finding
    """No host answered in time."""


class Failed(Exception):  # noqa: N818 - a finding
    """The response is not 200 with rows.

    :param seconds: duration of the request, connecting included.
    """

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class Refused(Failed):
    """The response is 4xx: the API works and refuses this request."""


class Api:
    """Asks the API's hosts in turn; when one does not answer, the next.

    A load balancer does the same: users are served as long as one host answers. A host that is down has its own alert.

    :param urls: addresses of the hosts, ``http://HOST:PORT``.
    :param key: API key, or None where the API needs none.
    :param timeout: limit for connecting to one host and for each wait for a part of its answer, in seconds.
    """

    def __init__(self, urls: Sequence[str], key: str | None, timeout: float) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._turns = itertools.count()
        self._headers = {"User-Agent": "streampulse-probe", "Accept": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = timeout

    def rows(self, path: str, request_id: str | None = None) -> Rows:
        """Return the rows of the answer to a path.

        :param request_id: id of the request in the API's log.
        :raises Unanswered: no host answered in time.
        :raises Refused: the answer is 4xx.
        :raises Failed: the answer is anything else but 200 with rows.
        """
        first = next(self._turns) % len(self._urls)
        headers = {**self._headers, "X-Request-ID": request_id or f"probe-{uuid.uuid4()}"}
        causes = []
        for url in self._urls[first:] + self._urls[:first]:
            begun = time.monotonic()
            try:
                answer = http.get(url + path, seconds=self._timeout, headers=headers)
            except http.NoAnswer as error:
                causes.append(f"{url}: {one_line(error)}" if len(self._urls) > 1 else one_line(error))
                continue
            return _read(answer, time.monotonic() - begun)
        raise Unanswered("; ".join(causes))


def _read(answer: httpx.Response, seconds: float) -> Rows:
    if answer.status_code != httpx.codes.OK:
        text = f"{answer.status_code} {answer.reason_phrase}"
        raise Refused(text, seconds) if answer.is_client_error else Failed(text, seconds)
    try:
        rows = answer.json()["rows"]
    except (ValueError, KeyError, TypeError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Failed("200 without rows", seconds)
    return Rows(rows, seconds)


class Requests:
    """Asks for the newest rows every few seconds and counts the outcomes.

    :param api: the API.
    :param interval: seconds between the starts of two requests.
    """

    def __init__(self, api: Api, interval: float) -> None:
        self._api = api
        self._interval = interval
        self._voice = Voice("the API")

    def step(self) -> float:
        """Ask once; return the seconds until the next request."""
        started = time.monotonic()
        seconds: float | None = None
        try:
            seconds = self._api.rows(_PATH).seconds
        except Unanswered as error:
            outcome = "unanswered"
            self._voice.wrong(str(error))
        except Refused as error:
            # An outdated key or too many requests is a fault of the probe, not of the API. The probe's event then
            # counts as unread.
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
