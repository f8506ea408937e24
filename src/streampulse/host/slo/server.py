"""HTTP clients of Prometheus and Alertmanager, with a time limit and one-line errors."""

import json
import math
import os
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpx

from streampulse.core import http
from streampulse.core.errors import OperatorError, one_line
from streampulse.core.settings import MonitoringSettings, load

#: Both answer in milliseconds. A server that takes longer than this is broken.
ANSWER_SECONDS: Final = 5.0


def monitoring_or_none() -> MonitoringSettings | None:
    """Return the addresses of Prometheus and Alertmanager, None if this host has no such settings."""
    return load(MonitoringSettings) if os.environ.get("STREAMPULSE_MONITORING_PROMETHEUS_URL") else None


def monitoring() -> MonitoringSettings:
    """Return the addresses of Prometheus and Alertmanager.

    :raises OperatorError: this host has no such settings.
    """
    settings = monitoring_or_none()
    if settings is None:
        raise OperatorError("this host has no monitoring, or you may not read its settings: inv up --full")
    return settings


class Sample(NamedTuple):
    """One series' labels and its value now; None if the value is not a number."""

    labels: Mapping[str, str]
    value: float | None


class NotFound(OperatorError):  # noqa: N818 - an answer, not a failure of the server
    """The server has no object of that name."""


class Server:
    """A Prometheus or Alertmanager server.

    Every method that asks it raises OperatorError where the server does not answer or refuses the request, or where its
    answer is not understood.

    :param name: its display name, which is also its service's name.
    :param url: its address without a path.
    :param settings: name and password, if it asks for them.
    """

    def __init__(self, name: str, url: str, settings: MonitoringSettings) -> None:
        """Store the address; no request is sent yet."""
        self.name = name
        self.url = url.rstrip("/")
        self._login = None
        if settings.user is not None and settings.password is not None:
            self._login = settings.user, settings.password.get_secret_value()

    def ask(
        self, path: str, parameters: Mapping[str, str] | None = None, *, method: str = "GET", document: Any = None
    ) -> Any:
        """Send a request and return the document of the response, None without one.

        :param parameters: of the query.
        :param document: sent as JSON.
        """
        text = self.text(path, parameters, method=method, document=document)
        try:
            return json.loads(text) if text.strip() else None
        except ValueError:
            raise OperatorError(
                f"{self.name} at {self.url} gives an answer that is not JSON: inv logs {self.name}"
            ) from None

    def text(
        self, path: str, parameters: Mapping[str, str] | None = None, *, method: str = "GET", document: Any = None
    ) -> str:
        """Send a request and return the response as text; see :meth:`ask`."""
        url = f"{self.url}{path}" + (f"?{urllib.parse.urlencode(parameters)}" if parameters else "")
        headers, body = {"Accept": "application/json"}, None
        if document is not None:
            headers["Content-Type"], body = "application/json", json.dumps(document).encode()
        try:
            answer = http.request(method, url, seconds=ANSWER_SECONDS, headers=headers, login=self._login, body=body)
            if not answer.is_success:
                raise self._refused(answer)
            return answer.text
        except (OSError, ValueError) as error:
            raise OperatorError(
                f"{self.name} does not answer at {self.url} ({one_line(error)}): inv logs {self.name}; inv up --full"
            ) from None

    def _refused(self, answer: httpx.Response) -> OperatorError:
        if answer.status_code == httpx.codes.NOT_FOUND:
            return NotFound(f"{self.name} at {self.url} has nothing there: inv logs {self.name}; inv up --full")
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return OperatorError(
                f"{self.name} at {self.url} takes neither this host's name nor its password: inv up --full"
            )
        words = " ".join(answer.text.split())[:200]
        said = f" ({words})" if words else ""
        return OperatorError(f"{self.name} at {self.url} answers {answer.status_code}{said}: inv logs {self.name}")


class Prometheus(Server):
    """Prometheus, version 2.42 and newer."""

    def __init__(self, settings: MonitoringSettings) -> None:
        """Store the address."""
        super().__init__("prometheus", settings.prometheus_url, settings)

    def query(self, expression: str) -> list[Sample]:
        """Return the present value of an expression, one sample for each series."""
        return [Sample(item["metric"], _number(item["value"][1])) for item in self._data(expression, "vector")]

    def history(self, expression: str) -> list[tuple[Mapping[str, str], list[float]]]:
        """Return the values of a range selector, the oldest first, for each series."""
        found = []
        for item in self._data(expression, "matrix"):
            numbers = [_number(value) for _, value in item["values"]]
            found.append((item["metric"], [number for number in numbers if number is not None]))
        return found

    def between(self, expression: str, seconds: int, step: int) -> list[tuple[Mapping[str, str], list[Any]]]:
        """Return the values of an expression over the last seconds: each series with its times and values.

        :param step: seconds between two values.
        """
        now = time.time()
        asked = {"query": expression, "start": f"{now - seconds:.0f}", "end": f"{now:.0f}", "step": str(step)}
        data = self._checked(self.ask("/api/v1/query_range", asked))
        return [(item["metric"], item["values"]) for item in data["result"]]

    def targets(self) -> list[dict[str, Any]]:
        """Return the scrape targets in the API's form."""
        return list(self._checked(self.ask("/api/v1/targets", {"state": "active"}))["activeTargets"])

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts of its rules in the API's form."""
        return list(self._checked(self.ask("/api/v1/alerts"))["alerts"])

    def _data(self, expression: str, kind: str) -> Sequence[dict[str, Any]]:
        data = self._checked(self.ask("/api/v1/query", {"query": expression}))
        if data.get("resultType") != kind:
            raise OperatorError(f"{self.name} answers {expression} with a {data.get('resultType')}, not a {kind}")
        return list(data["result"])

    def _checked(self, answer: Any) -> dict[str, Any]:
        if not isinstance(answer, dict) or answer.get("status") != "success" or "data" not in answer:
            raise OperatorError(f"{self.name} at {self.url} does not answer as Prometheus does: inv up --full")
        return dict(answer["data"])


class Alertmanager(Server):
    """Alertmanager, version 0.25 and newer."""

    def __init__(self, settings: MonitoringSettings) -> None:
        """Store the address."""
        super().__init__("alertmanager", settings.alertmanager_url, settings)

    def alerts(self) -> list[dict[str, Any]]:
        """Return every alert, suppressed ones included, in the API's form."""
        return self._list("/api/v2/alerts")

    def post_alert(self, alert: Mapping[str, Any]) -> None:
        """Create an alert or change its end, in the API's form."""
        self.ask("/api/v2/alerts", method="POST", document=[alert])

    def configuration(self) -> str:
        """Return the running configuration as YAML, without the secrets that Alertmanager knows as such."""
        return str(self.ask("/api/v2/status")["config"]["original"])

    def metrics(self) -> str:
        """Return its own metrics in Prometheus' text format."""
        return self.text("/metrics")

    def silences(self) -> list[dict[str, Any]]:
        """Return every silence, ended ones included, in the API's form."""
        return self._list("/api/v2/silences")

    def silence(self, identity: str) -> dict[str, Any]:
        """Return one silence.

        :raises NotFound: no silence has that id.
        """
        return dict(self.ask(f"/api/v2/silence/{urllib.parse.quote(identity, safe='')}"))

    def make_silence(self, document: Mapping[str, Any]) -> str:
        """Create a silence and return its id."""
        return str(self.ask("/api/v2/silences", method="POST", document=document)["silenceID"])

    def end_silence(self, identity: str) -> None:
        """End a silence now."""
        self.ask(f"/api/v2/silence/{urllib.parse.quote(identity, safe='')}", method="DELETE")

    def _list(self, path: str) -> list[dict[str, Any]]:
        answer = self.ask(path)
        if not isinstance(answer, list):
            raise OperatorError(f"{self.name} at {self.url} does not answer as Alertmanager does: inv up --full")
        return answer


def _number(text: str) -> float | None:
    """Parse a value of Prometheus; None if it is not a finite number."""
    value = float(text)
    return value if math.isfinite(value) else None
