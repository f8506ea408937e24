"""Every query of the committed dashboards, sent to a real Prometheus and a real PostgreSQL as Grafana would.

Grafana is not needed: its variables and macros are substituted here.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from stack import Stack

FOLDER: Final = Path(__file__).parents[2] / "grafana" / "dashboards"

#: Queries that may return nothing on a healthy stack, as (dashboard, panel, query), with the reason.
MAY_BE_EMPTY: Final[Mapping[tuple[str, int, str], str]] = {
    ("streampulse-overview", 2, "A"): "nothing fires on a healthy machine",
    ("streampulse-api", 20, "A"): "nobody was refused",
    ("streampulse-api", 34, "A"): "the database failed no request",
    ("streampulse-kafka", 24, "A"): "no request failed",
    ("streampulse-host", 31, "A"): "no unit was started again by systemd",
    ("streampulse-kafka", 34, "A"): "no transaction is open",
    ("streampulse-pipeline", 30, "A"): "every record counted",
    ("streampulse-pipeline", 44, "A"): "no record was lost",
}

_RANGE: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Query:
    """One query of a dashboard, as written there."""

    dashboard: str
    panel: int
    name: str
    title: str
    text: str
    language: str
    #: Whether it is a range query or an instant query.
    over_time: bool

    def __str__(self) -> str:
        return f"{self.dashboard} · {self.title} ({self.panel} {self.name})"


def boards() -> dict[str, dict[str, Any]]:
    """Return every committed dashboard by its uid."""
    found = (json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json")))
    return {board["uid"]: board for board in found}


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels of a dashboard, including those of collapsed rows, without the rows themselves."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels") or ()
        else:
            yield panel


def queries() -> list[Query]:
    """Return every query of every panel."""
    return [
        Query(
            dashboard=uid,
            panel=panel["id"],
            name=target["refId"],
            title=panel["title"],
            text=target.get("expr") or target["rawSql"],
            language="promql" if "expr" in target else "sql",
            over_time=bool(target.get("range")) or target.get("format") == "time_series",
        )
        for uid, board in boards().items()
        for panel in panels(board)
        for target in panel["targets"]
    ]


def promql(text: str, host: str = ".*") -> str:
    """Return PromQL with Grafana's variables substituted.

    :param host: the selected host or worker; all by default.
    """
    replaced = text.replace("$__rate_interval", "1m").replace("$__interval", "15s")
    replaced = replaced.replace("$host", host).replace("$worker", host)
    assert "$" not in re.sub(r'"\$\d"', "", replaced), f"a variable that nobody replaces: {replaced}"
    return replaced


def sql(text: str, stream: str, now: datetime, over: timedelta = _RANGE) -> str:
    """Return SQL with Grafana's variables and macros substituted.

    :param stream: the selected stream.
    """
    since, until = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (now - over, now))
    replaced = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN '{since}' AND '{until}'", text)
    replaced = replaced.replace("$__timeTo()", f"'{until}'").replace("$__timeFrom()", f"'{since}'")
    replaced = replaced.replace("${stream:sqlstring}", "'" + stream.replace("'", "''") + "'")
    assert "$" not in replaced, f"a variable that nobody replaces: {replaced}"
    return replaced


class Prometheus:
    """A Prometheus, over its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of a response; Prometheus' errors raise a ValueError."""
        answer = httpx.post(f"{self.url}/api/v1/{path}", data=parameters, timeout=30, trust_env=False)
        if answer.is_error:
            raise ValueError(answer.text.strip())
        return answer.json()["data"]

    def series(self, text: str, over_time: bool) -> list[dict[str, Any]]:
        """Return the series of a query: their present values, or the last hour in 240 steps."""
        if not over_time:
            return list(self.ask("query", query=text)["result"])
        now = datetime.now(UTC)
        return list(
            self.ask(
                "query_range",
                query=text,
                start=str((now - _RANGE).timestamp()),
                end=str(now.timestamp()),
                step=str(_RANGE.total_seconds() / 240),
            )["result"]
        )


def wrong_in_prometheus(prometheus: Prometheus, *, need_series: bool = True) -> list[str]:
    """Return the faults of the dashboards' PromQL: queries that do not parse, or find nothing.

    :param need_series: whether an empty result is a fault, except for :data:`MAY_BE_EMPTY`.
    """
    wrong = []
    for query in queries():
        if query.language != "promql":
            continue
        try:
            found = prometheus.series(promql(query.text), query.over_time)
        except ValueError as error:
            wrong.append(f"{query}: {error}")
            continue
        if need_series and not found and (query.dashboard, query.panel, query.name) not in MAY_BE_EMPTY:
            wrong.append(f"{query}: no series: {promql(query.text)}")
    for uid, board in boards().items():
        for annotation in board["annotations"]["list"]:
            try:
                prometheus.series(promql(annotation["expr"]), over_time=True)
            except ValueError as error:
                wrong.append(f"{uid} · annotation {annotation['name']}: {error}")
        for variable in board["templating"]["list"]:
            wrong += _wrong_variable(prometheus, uid, variable, need_series)
    return wrong


def _wrong_variable(prometheus: Prometheus, uid: str, variable: Mapping[str, Any], need_values: bool) -> Iterator[str]:
    if variable["type"] != "query" or not isinstance(variable["query"], dict):
        return
    text = variable["query"]["query"]
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", text)
    if match is None:
        yield f"{uid} · variable {variable['name']}: not understood: {text}"
        return
    try:
        found = prometheus.ask("query", query=f"group by ({match[2]}) ({match[1]})")["result"]
    except ValueError as error:
        yield f"{uid} · variable {variable['name']}: {error}"
        return
    if need_values and not [each for each in found if each["metric"].get(match[2])]:
        yield f"{uid} · variable {variable['name']}: no values: {text}"


def wrong_in_postgres(run: Callable[[str], list[str]]) -> list[str]:
    """Return the faults of the dashboards' SQL: statements that fail, or find nothing.

    :param run: runs a statement as the reading role and returns its rows; the server's errors raise a ValueError.
    """
    wrong = []
    now = datetime.now(UTC)
    streams = [
        variable["query"]
        for board in boards().values()
        for variable in board["templating"]["list"]
        if variable["name"] == "stream"
    ]
    chosen = [name for statement in streams for name in run(statement)]
    if not chosen:
        wrong.append(f"no stream can be chosen: {streams}")
    for query in queries():
        if query.language != "sql":
            continue
        try:
            found = run(sql(query.text, chosen[0] if chosen else "", now))
        except ValueError as error:
            wrong.append(f"{query}: {error}")
            continue
        if not found:
            wrong.append(f"{query}: no rows: {query.text}")
    return wrong


def wrong_on(stack: Stack) -> list[str]:
    """Return the faults of the dashboards' queries on a running machine with monitoring and counted events."""
    return [
        *wrong_in_prometheus(Prometheus(f"http://{stack.address}:9090")),
        *wrong_in_postgres(lambda statement: _psql(stack, statement)),
    ]


def _psql(stack: Stack, statement: str) -> list[str]:
    # Grafana's role, password and address; a panel may take five seconds at most.
    done = stack.ssh(
        "set -a; . /etc/streampulse/postgres-reader.env;"
        ' PGOPTIONS="-c statement_timeout=5000" PGPASSWORD="$STREAMPULSE_POSTGRES_PASSWORD"'
        ' psql -XAt -v ON_ERROR_STOP=1 -h "$STREAMPULSE_POSTGRES_HOST" -p "$STREAMPULSE_POSTGRES_PORT"'
        ' -U "$STREAMPULSE_POSTGRES_USER" -d "$STREAMPULSE_POSTGRES_DATABASE" -c ' + shlex.quote(statement)
    )
    if done.code != 0:
        raise ValueError(done.err.strip())
    return done.out.splitlines()
