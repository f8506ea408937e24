"""The dashboards for Grafana: data in ``grafana/dashboards/NAME.yml.j2``, which this module renders to Grafana's JSON.

The templates have ``<< >>`` around the values of ``prometheus/values.yml``, as the rules do. ``common.yml.j2`` explains
the keys and has the parts that all dashboards share. Hosts get the JSON that is committed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import jinja2
import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.monitoring import rules

FOLDER: Final = "grafana/dashboards"
_ENDING: Final = ".yml.j2"
_COMMON: Final = "common"
#: Columns of Grafana's grid.
_WIDTH: Final = 24
#: Ids from here on belong to rows.
_ROWS: Final = 1000
#: Our keys for properties of Grafana's field configuration that take the value as it is.
_PROPERTIES: Final = {"unit": "unit", "min": "min", "max": "max", "decimals": "decimals", "no_value": "noValue"}
_NEEDED: Final = {"kind", "id", "description"}
_KEYS: Final = {
    *(*_NEEDED, *_PROPERTIES, "title", "graph", "stat", "table", "up", "width", "height"),
    *("lines", "value", "legend", "rows", "sql", "orange_from", "red_from", "red_below", "stacked", "word", "texts"),
    *("columns", "cells", "sort", "runbook", "dashboard"),
}

Json = dict[str, Any]


@cache
def names() -> tuple[str, ...]:
    """Return the names of the dashboards, which end their files' stems and their uids."""
    found = {file.name.removesuffix(_ENDING) for file in (paths.repository() / FOLDER).glob(f"*{_ENDING}")}
    return tuple(sorted(found - {_COMMON}))


@cache
def document(name: str) -> Json:
    """Return a file of the folder as data.

    :param name: one of :func:`names`, or ``common``.
    :raises OperatorError: it is no template, or no YAML after rendering.
    """
    pages = {alert: [page] for alert, page in sorted(_runbooks().items())}
    try:
        template = rules.environment(paths.repository() / FOLDER).get_template(f"{name}{_ENDING}")
        found: Json = yaml.safe_load(template.render({**rules.document(), "runbooks": pages}))
    except (jinja2.TemplateError, yaml.YAMLError) as error:
        raise OperatorError(f"{FOLDER}/{name}{_ENDING} cannot be read: {' '.join(str(error).split())}") from None
    return found


def dashboard(name: str) -> Json:
    """Return a dashboard as Grafana reads it.

    :param name: one of :func:`names`.
    :raises OperatorError: a file cannot be read, or a panel lacks a key or has an unknown key, alert or dashboard.
    """
    common, board = document(_COMMON), document(name)
    source = common["sources"][board.get("source", "prometheus")]
    metrics = _reference(common["sources"]["prometheus"])
    marks = [{**common["annotation"], **each, "datasource": metrics} for each in common["annotations"]]
    return {
        **common["dashboard"],
        "annotations": {"list": marks},
        "description": board["description"],
        "links": [{**common["link"], **each} for each in common["links"]],
        "panels": list(_placed(_complete(name, board["rows"]), _reference(source))),
        "templating": {"list": list(_variables(board, source))},
        "title": f"streampulse · {board['title']}",
        "uid": f"streampulse-{name}",
    }


def files() -> dict[str, Callable[[Path], str]]:
    """Return for each committed file, by its path in the checkout, the function that makes its text."""
    return {f"{FOLDER}/streampulse-{name}.json": partial(_text, name) for name in names()}


def _text(name: str, _root: Path) -> str:
    return json.dumps(dashboard(name), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _runbooks() -> dict[str, str]:
    return {alert.name: alert.runbook for alert in rules.alerts()}


def _reference(source: Json) -> Json:
    # The data source is a variable: an environment is the Prometheus, or the PostgreSQL, that knows it.
    return {"type": source["type"], "uid": f"${{{source['variable']}}}"}


def _variables(board: Json, source: Json) -> Iterator[Json]:
    common = document(_COMMON)
    default = {"text": source["default"], "value": source["default"]}
    environment = {"name": source["variable"], "label": "Environment", "type": "datasource", "current": default}
    yield {**common["variable"], **environment, "query": source["type"]}
    for name, query in board.get("variables", {}).items():
        chosen: Json = {"query": query}
        if source["type"] == "prometheus":
            asked = {"query": f"label_values({query}, host)", "refId": name, "qryType": 1}
            chosen = {**common["hosts"], "query": asked}
        own = {"name": name, "label": name.capitalize(), "type": "query", "datasource": _reference(source)}
        yield {**common["variable"], **chosen, **own, "refresh": 2}


def _complete(name: str, rows: Mapping[str, Sequence[Json]]) -> dict[str, list[Json]]:
    """Return the panels of each row with their kind, their title and the defaults of their kind.

    :raises OperatorError: as :func:`dashboard` says.
    """
    defaults = document(_COMMON)["defaults"]
    found: dict[str, list[Json]] = {}
    for heading, panels in rows.items():
        found[heading] = []
        for given in panels:
            panel = {**defaults["up"], "stat": given["up"], **given} if "up" in given else given
            for kind in {"graph", "stat", "table"} & panel.keys():
                panel = {**defaults[kind], **panel, "kind": kind, "title": panel[kind]}
            wrong = [f"no {key}" for key in sorted(_NEEDED - panel.keys())]
            wrong += [f"an unknown key {key}" for key in sorted(panel.keys() - _KEYS)]
            wrong += [f"an unknown alert {each}" for each in _list(panel.get("runbook")) if each not in _runbooks()]
            wrong += [f"an unknown dashboard {each}" for each in _list(panel.get("dashboard")) if each not in names()]
            if wrong:
                where = f"{FOLDER}/{name}{_ENDING}: {panel.get('title', heading)}"
                raise OperatorError(f"{where} has {', '.join(wrong)}; {_COMMON}{_ENDING} lists the keys")
            found[heading].append(panel)
    return found


def _placed(rows: Mapping[str, Sequence[Json]], source: Json) -> Iterator[Json]:
    """Yield rows and their panels with places: from left to right, on the next line when one is full."""
    y = 0
    for index, (heading, panels) in enumerate(rows.items()):
        row = {"id": _ROWS + index, "title": heading, "type": "row", "collapsed": False, "panels": []}
        yield {**row, "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1}}
        x, y, tallest = 0, y + 1, 0
        for panel in panels:
            place = {"x": x, "y": y, "w": panel["width"], "h": panel["height"]}
            yield {**_panel(panel, source), "gridPos": place}
            x, tallest = x + panel["width"], max(tallest, panel["height"])
            if x >= _WIDTH:
                x, y, tallest = 0, y + tallest, 0
        y += tallest


def _panel(panel: Json, source: Json) -> Json:
    """Return a panel in Grafana's form, without its place."""
    common, kind = document(_COMMON), panel["kind"]
    steps = _steps(panel)
    fields = {
        **{name: panel[key] for key, name in _PROPERTIES.items() if panel.get(key) is not None},
        "thresholds": {"mode": "absolute", "steps": steps},
        **({"mappings": _mappings(panel["texts"])} if "texts" in panel else {}),
    }
    made = {
        **{key: panel[key] for key in ("id", "title", "description")},
        "datasource": source,
        "fieldConfig": {"defaults": fields, "overrides": [_override(*cell) for cell in panel.get("cells", {}).items()]},
        "options": {"sortBy": [{"displayName": panel["sort"], "desc": False}]} if "sort" in panel else {},
        "targets": _targets(panel, source),
    }
    if links := _links(panel):
        made["links"] = links
    if "columns" in panel:
        made["transformations"] = _transformations(panel)
    # Parts of Grafana's form that one of these keys adds.
    added = {"stacked", "word", "legend"} & panel.keys() | ({f"{kind}_with_steps"} if len(steps) > 1 else set())
    return _merged(common["panel"], common[kind], *(common[name] for name in sorted(added)), made)


def _steps(panel: Json) -> list[Json]:
    """Return where the panel's colour changes."""
    if "red_below" in panel:
        return [{"color": "red", "value": None}, {"color": "green", "value": panel["red_below"]}]
    steps = [{"color": each, "value": panel[f"{each}_from"]} for each in ("orange", "red") if f"{each}_from" in panel]
    return [{"color": "green" if steps else "text", "value": None}, *steps]


def _targets(panel: Json, source: Json) -> list[Json]:
    """Return the queries: over time for a graph, else of the newest value."""
    over_time = panel["kind"] == "graph"
    queries: list[Json]
    if "sql" in panel:
        queries = [{"rawSql": panel["sql"], "rawQuery": True, "format": "time_series" if over_time else "table"}]
    elif "rows" in panel:
        queries = [{"expr": expr, "format": "table"} for expr in panel["rows"]]
    elif over_time:
        queries = [{"expr": expr, "legendFormat": legend} for legend, expr in panel["lines"].items()]
    else:
        queries = [{"expr": panel["value"], "legendFormat": panel.get("legend", "__auto")}]
    for query, letter in zip(queries, "ABCD", strict=False):
        query |= {"datasource": source, "editorMode": "code", "refId": letter}
        if "expr" in query:
            query |= {"instant": not over_time, "range": over_time}
    return queries


def _links(panel: Json) -> list[Json]:
    """Return the links beside a panel's title: to runbooks of alerts, then to other dashboards."""
    found = []
    for alert in _list(panel.get("runbook")):
        page = _runbooks()[alert]
        found.append({"title": f"Runbook: {page}", "url": f"{rules.RUNBOOKS}/{page}.html", "targetBlank": True})
    for name in _list(panel.get("dashboard")):
        address = f"/d/streampulse-{name}?${{__all_variables}}&${{__url_time_range}}"
        found.append({"title": document(name)["title"], "url": address})
    return [{**document(_COMMON)["link"], **link} for link in found]


def _transformations(panel: Json) -> list[Json]:
    """Return what makes a table of series: only the given columns, in their order, with their headings."""
    columns = panel["columns"]
    order = {name: index for index, name in enumerate(columns)}
    return [
        *([{"id": "merge", "options": {}}] if len(panel["rows"]) > 1 else []),
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {"id": "organize", "options": {"indexByName": order, "renameByName": columns}},
    ]


def _override(heading: str, cell: Json) -> Json:
    """Return how the cells of a column look."""
    values: Json = {}
    for key, value in cell.items():
        if key == "colour":
            values["custom.cellOptions"] = {"type": "color-background", "mode": "basic"}
        elif key == "texts":
            values["mappings"] = _mappings(value)
        elif key == "link":
            title, url = value
            values["links"] = [{"title": title, "url": url, "targetBlank": url.startswith(rules.RUNBOOKS)}]
        else:
            values[_PROPERTIES[key]] = value
    properties = [{"id": name, "value": value} for name, value in values.items()]
    return {"matcher": {"id": "byName", "options": heading}, "properties": properties}


def _mappings(texts: Mapping[object, Sequence[str]]) -> list[Json]:
    """Return Grafana's mapping from values to texts, each perhaps with a colour."""
    options = {
        str(value): {"index": index, **dict(zip(("text", "color"), shown, strict=False))}
        for index, (value, shown) in enumerate(texts.items())
    }
    return [{"type": "value", "options": options}]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _merged(*parts: Json) -> Json:
    """Return one document of several; where two have a value, the later one's counts."""
    found: Json = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = _merged(found[key], value) if both else value
    return found
