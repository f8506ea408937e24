"""The API as its users reach it: over HTTP, with a connection of its own for each request."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
import uuid
from typing import Any, Final

from streampulse.probe import metrics
from streampulse.probe.part import Voice, line

Row = dict[str, Any]

_MAX_ANSWER_BYTES: Final = 1024 * 1024
_PATH: Final = "/metrics/latest?limit=1"


class Unanswered(Exception):  # noqa: N818 - a finding
    """Nothing came back, or not in time."""


class Failed(Exception):  # noqa: N818 - a finding
    """Something else came back than 200 with rows."""


class Refused(Failed):
    """The API did not let the request in, or does not know it: 4xx. It works, and says that the asker is wrong."""


class Api:
    """Asks the API.

    :param url: its address, ``http://HOST:PORT``.
    :param key: what lets a request in where the API asks for a key.
    :param timeout: how long connecting, and each wait for a part of the answer, may take, in seconds.
    """

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        parts = urllib.parse.urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._headers = {"User-Agent": "streampulse-probe", "Accept": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = timeout

    def rows(self, path: str, request_id: str | None = None) -> list[Row]:
        """Return the rows that a path answers with.

        :param request_id: by which the request can be found in the API's log.
        :raises Unanswered: nothing came back in time.
        :raises Refused: what came back is 4xx.
        :raises Failed: what came back is anything else but 200 with rows.
        """
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        headers = {**self._headers, "X-Request-ID": request_id or f"probe-{uuid.uuid4()}"}
        try:
            connection.request("GET", self._prefix + path, headers=headers)
            answer = connection.getresponse()
            body = answer.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(line(error)) from None
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            text = f"{answer.status} {answer.reason}"
            raise Refused(text) if 400 <= answer.status < 500 else Failed(text)
        try:
            rows = json.loads(body)["rows"]
        except (ValueError, KeyError, TypeError):
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Failed("200 without rows")
        return rows


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
        try:
            self._api.rows(_PATH)
        except Unanswered as error:
            outcome = "unanswered"
            self._voice.wrong(str(error))
        except Refused as error:
            # A key of before, or too many requests: our doing and no failure of the API's. What the probe cannot read
            # back is told all the same: its events are lost.
            outcome = "refused"
            self._voice.wrong(str(error))
        except Failed as error:
            outcome = "error"
            self._voice.wrong(str(error))
        else:
            outcome = "ok"
            self._voice.well()
        took = time.monotonic() - started
        metrics.API_REQUESTS.labels(outcome).inc()
        if outcome != "unanswered":
            metrics.API_SECONDS.observe(took)
        return max(0.0, self._interval - took)
