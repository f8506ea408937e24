"""What all dashboards are built from: data sources, variables, queries, panels, links.

A panel says four things, always in this order: its number, its title, how to read it, and its unit. The number stays
with the panel for ever, since links into a dashboard carry it; a panel that goes takes its number along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus as prometheus_builders
from grafana_foundation_sdk.builders import stat as stat_builders
from grafana_foundation_sdk.builders import table as table_builders
from grafana_foundation_sdk.builders import timeseries as timeseries_builders
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common, dashboard, prometheus, units

from streampulse_ops.monitoring import rules

#: Every dashboard by the name that ends its uid, from the widest view to the narrowest.
DASHBOARDS: Final[Mapping[str, str]] = {
    "overview": "Overview",
    "audience": "Audience",
    "pipeline": "Pipeline",
    "kafka": "Kafka",
    "spark": "Spark",
    "postgres": "PostgreSQL",
    "api": "API",
    "host": "Host",
}
#: What provisioning replaces by the address under which the environment's runbooks are served.
RUNBOOKS: Final = rules.RUNBOOKS
#: The limits of the alerts, where colours change.
VALUES: Final = rules.values()
TAG: Final = "streampulse"

# One unit for each kind of quantity, so that the same thing looks the same everywhere.
SECONDS: Final = units.Seconds
RATIO: Final = units.PercentUnit
COUNT: Final = units.Short
BYTES: Final = units.BytesIEC
BYTES_PER_SECOND: Final = units.BytesPerSecondIEC
EVENTS_PER_SECOND: Final = units.EventsPerSecond
RECORDS_PER_SECOND: Final = units.RecordsPerSecond
ROWS_PER_SECOND: Final = units.RowsPerSecond
REQUESTS_PER_SECOND: Final = units.RequestsPerSecond
OPERATIONS_PER_SECOND: Final = units.OpsPerSecond
DOLLARS: Final = units.Dollars
AGO: Final = units.DateTimeFromNow
MILLISECONDS: Final = units.Milliseconds
DAYS: Final = "d"
NO_UNIT: Final = units.NoUnit

#: Matchers of the API's requests without those of machines, and of those that end: a reader of /live stays.
PEOPLE: Final = 'route!~"/health|/prometheus"'
TIMED: Final = 'route!~"/health|/prometheus|/live"'

GOOD: Final = "green"
WARN: Final = "orange"
BAD: Final = "red"

# The data sources are variables: an environment is the Prometheus, and the PostgreSQL, that knows it.
METRICS: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${environment}")
NUMBERS: Final = dashboard.DataSourceRef(type_val="grafana-postgresql-datasource", uid="${numbers}")

#: A version that runs now and did not run in the ten minutes before: a deploy, and not a restart. Where none ran then,
#: one that ran within the day is back from an outage.
_NEW_VERSION: Final = (
    "count by (version) ({metric})"
    " unless on (version) count by (version) (last_over_time({metric}[10m] offset 1m))"
    " unless on (version) (count by (version) (last_over_time({metric}[1d] offset 1m))"
    " unless on () count(last_over_time({metric}[10m] offset 1m)))"
)

Panel = cog.Builder[dashboard.Panel]
Query = cog.Builder[variants.Dataquery]
Steps = cog.Builder[dashboard.ThresholdsConfig]
Link = cog.Builder[dashboard.DashboardLink]


class SqlQuery(variants.Dataquery):
    """A query in SQL, which the SDK has no type for."""

    def __init__(self, sql: str, result: str) -> None:
        """Keep a query.

        :param sql: the statement, with Grafana's macros.
        :param result: ``time_series`` for a column ``time`` and numbers, ``table`` for anything else.
        """
        self.sql = sql
        self.result = result
        self.ref_id = ""

    def to_json(self) -> dict[str, object]:
        """Return what Grafana's PostgreSQL data source reads."""
        return {
            "datasource": NUMBERS,
            "editorMode": "code",
            "format": self.result,
            "rawQuery": True,
            "rawSql": self.sql,
            "refId": self.ref_id,
        }


class _Sql(cog.Builder[variants.Dataquery]):
    def __init__(self, query: SqlQuery) -> None:
        self.query = query

    def build(self) -> variants.Dataquery:
        return self.query


class Annotation(dashboard.AnnotationQuery):
    """Marks from Prometheus, with the texts that the SDK's type leaves out."""

    def __init__(self, name: str, colour: str, expr: str, title: str, text: str) -> None:
        """Keep an annotation.

        :param expr: a query whose points, where they are not 0, are marks.
        :param title: the mark's first line, with ``{{label}}``.
        :param text: its second one.
        """
        super().__init__(name=name, datasource=METRICS, icon_color=colour, expr=expr)
        self.texts = {"step": "30s", "titleFormat": title, "textFormat": text}

    def to_json(self) -> dict[str, object]:
        """Return what Grafana reads."""
        return {**super().to_json(), **self.texts}


class _Annotation(cog.Builder[dashboard.AnnotationQuery]):
    def __init__(self, annotation: Annotation) -> None:
        self.annotation = annotation

    def build(self) -> dashboard.AnnotationQuery:
        return self.annotation


def uid(name: str) -> str:
    """Return the uid of a dashboard: ``streampulse-`` and its name in :data:`DASHBOARDS`."""
    return f"streampulse-{name}"


# Queries


def series(expr: str, legend: str) -> Query:
    """Return a query over time.

    :param expr: PromQL.
    :param legend: name of each line, with ``{{label}}``.
    """
    return (
        prometheus_builders.Dataquery()
        .datasource(METRICS)
        .expr(expr)
        .range()
        .editor_mode(prometheus.QueryEditorMode.CODE)
        .legend_format(legend)
    )


def now(expr: str, legend: str = "__auto") -> Query:
    """Return a query for the newest value only.

    :param expr: PromQL.
    :param legend: name of each value.
    """
    return (
        prometheus_builders.Dataquery()
        .datasource(METRICS)
        .expr(expr)
        .instant()
        .editor_mode(prometheus.QueryEditorMode.CODE)
        .legend_format(legend)
    )


def rows(expr: str) -> Query:
    """Return a query for a table: a row for each series, a column for each label.

    :param expr: PromQL.
    """
    return (
        prometheus_builders.Dataquery()
        .datasource(METRICS)
        .expr(expr)
        .instant()
        .editor_mode(prometheus.QueryEditorMode.CODE)
        .format(prometheus.PromQueryFormat.TABLE)
    )


def sql(statement: str, *, over_time: bool = False) -> Query:
    """Return a query in SQL.

    :param statement: with Grafana's macros; whatever the time range, it must be bounded.
    :param over_time: whether it returns a column ``time``.
    """
    return _Sql(SqlQuery(" ".join(statement.split()), "time_series" if over_time else "table"))


def quantile(q: float, bucket: str, by: str = "", window: str = "$__rate_interval") -> str:
    """Return PromQL for a quantile of a histogram.

    :param q: 0 to 1.
    :param bucket: the histogram's buckets, with their filter.
    :param by: labels to keep.
    :param window: over how long.
    """
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({bucket}[{window}])))"


def mean(histogram: str, by: str, filters: str = "", window: str = "$__rate_interval") -> str:
    """Return PromQL for the mean of a histogram.

    :param histogram: its name.
    :param by: labels to keep.
    :param filters: PromQL's ``{...}``.
    :param window: over how long.
    """
    total, count = (f"sum by ({by}) (rate({histogram}_{part}{filters}[{window}]))" for part in ("sum", "count"))
    return f"{total} / {count}"


# Thresholds


def above(warn: float | None = None, bad: float | None = None) -> Steps:
    """Return steps for a value that is good while it is low.

    :param warn: from here on the value is a ticket.
    :param bad: from here on the value pages.
    """
    return _steps(GOOD, ((warn, WARN), (bad, BAD)))


def below(warn: float | None = None, bad: float | None = None) -> Steps:
    """Return steps for a value that is good while it is high.

    :param warn: less than this is a warning.
    :param bad: less than this is bad.
    """
    base = WARN if bad is None else BAD
    return _steps(base, ((bad, WARN if warn is not None else GOOD), (warn, GOOD)))


def plain() -> Steps:
    """Return steps for a value that is neither good nor bad."""
    return _steps("text", ())


def _steps(base: str, steps: Sequence[tuple[float | None, str]]) -> Steps:
    made = [dashboard.Threshold(value=None, color=base)]
    made += [dashboard.Threshold(value=value, color=colour) for value, colour in steps if value is not None]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def texts(meaning: Mapping[str, tuple[str, str | None]]) -> list[dashboard.ValueMapping]:
    """Return a mapping from values to what is shown instead.

    :param meaning: for each value the text and the colour.
    """
    options = {
        value: dashboard.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(meaning.items())
    }
    return [dashboard.ValueMap(options=options)]


UP_OR_DOWN: Final = texts({"0": ("DOWN", BAD), "1": ("up", GOOD)})


# Links


def down(name: str) -> Link:
    """Return a link to another dashboard that takes the time range and the variables along.

    :param name: one of :data:`DASHBOARDS`.
    """
    return builders.DashboardLink(DASHBOARDS[name]).url(f"/d/{uid(name)}?${{__all_variables}}&${{__url_time_range}}")


def runbook(alert: str) -> Link:
    """Return a link to the runbook of an alert.

    :param alert: its name.
    """
    (page,) = {rule.runbook for rule in rules.alerts() if rule.name == alert}
    return builders.DashboardLink(f"Runbook: {page}").url(f"{RUNBOOKS}/{page}.html").target_blank(True)


# Panels


def _common(
    panel: Any, number: int, title: str, description: str, unit: str, queries: Sequence[Query], links: Sequence[Link]
) -> None:
    panel.id(number).title(title).description(" ".join(description.split())).unit(unit)
    for index, query in enumerate(queries):
        query.build().ref_id = chr(ord("A") + index)  # type: ignore[attr-defined]
        panel.with_target(query)
    sources = {type(query.build()) for query in queries}
    panel.datasource(NUMBERS if sources == {SqlQuery} else METRICS)
    if links:
        panel.links(list(links))


def graph(
    number: int,
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps | None = None,
    span: int = 8,
    height: int = 8,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
    decimals: float | None = None,
    links: Sequence[Link] = (),
) -> Panel:
    """Return lines over time.

    :param steps: drawn as dashed lines.
    :param span: width, of 24.
    :param height: in rows of Grafana's grid.
    :param stacked: whether the lines add up.
    :param least: the beginning of the axis; None for what may be less than nothing.
    :param most: its end, for shares.
    :param decimals: how many are shown.
    :param links: shown beside the title.
    """
    panel = timeseries_builders.Panel()
    _common(panel, number, title, description, unit, queries, links)
    panel.span(span).height(height).line_width(1).fill_opacity(60 if stacked else 8)
    panel.show_points(common.VisibilityMode.AUTO).span_nulls(False)
    panel.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel.tooltip(
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel.legend(
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
    )
    panel.thresholds(steps or plain())
    if steps is not None:
        panel.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def figure(
    number: int,
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps | None = None,
    span: int = 4,
    height: int = 4,
    decimals: float | None = None,
    mappings: Sequence[dashboard.ValueMapping] = (),
    nothing: str | None = None,
    names: bool = False,
    word: bool = False,
    links: Sequence[Link] = (),
) -> Panel:
    """Return one large number, or one for each of several.

    :param steps: the colours of the number's background.
    :param mappings: from :func:`texts`.
    :param nothing: shown when there is no value.
    :param names: whether to show each number's name.
    :param word: whether it is a text and no number.
    """
    panel = stat_builders.Panel()
    _common(panel, number, title, description, unit, queries, links)
    panel.span(span).height(height)
    reduced = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel.reduce_options(reduced.fields("/.*/") if word else reduced)
    panel.graph_mode(common.BigValueGraphMode.NONE)
    panel.color_mode(common.BigValueColorMode.NONE if steps is None else common.BigValueColorMode.BACKGROUND_SOLID)
    panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME if names else common.BigValueTextMode.VALUE)
    panel.justify_mode(common.BigValueJustifyMode.CENTER)
    panel.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    panel.thresholds(steps or plain())
    if decimals is not None:
        panel.decimals(decimals)
    if mappings:
        panel.mappings(list(mappings))
    if nothing is not None:
        panel.no_value(nothing)
    return panel


def up(number: int, title: str, description: str, expr: str, alert: str) -> Panel:
    """Return whether each host of a service is up.

    :param expr: PromQL for 1 (up) or 0, with the label ``host``.
    :param alert: the alert whose runbook the panel links to.
    """
    return figure(
        number,
        title,
        description,
        NO_UNIT,
        now(expr, "{{host}}"),
        steps=below(bad=1),
        mappings=UP_OR_DOWN,
        names=True,
        nothing="not scraped",
        links=[runbook(alert)],
    )


def table(
    number: int,
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    columns: Mapping[str, str] | None = None,
    overrides: Mapping[str, Sequence[tuple[str, object]]] | None = None,
    sort: str | None = None,
    span: int = 12,
    height: int = 8,
    nothing: str | None = None,
    links: Sequence[Link] = (),
) -> Panel:
    """Return a table.

    :param columns: of a table from Prometheus, the labels that are shown, in this order, with their headings;
        ``Value`` is the number (``Value #A`` of several queries). Everything else is left out.
    :param overrides: for a heading, properties of Grafana's field configuration and their values.
    :param sort: heading of the column to sort by; one that begins with ``-`` the other way round.
    :param nothing: shown when there is no row.
    """
    panel = table_builders.Panel()
    _common(panel, number, title, description, unit, queries, links)
    panel.span(span).height(height).thresholds(plain()).cell_height(common.TableCellHeight.SM)
    if columns is not None:
        if len(queries) > 1:
            panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        panel.with_transformation(
            dashboard.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(columns)}})
        )
        panel.with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "indexByName": {name: index for index, name in enumerate(columns)},
                    "renameByName": dict(columns),
                },
            )
        )
    for heading, properties in (overrides or {}).items():
        panel.override_by_name(
            heading, [dashboard.DynamicConfigValue(id_val=name, value=value) for name, value in properties]
        )
    if sort is not None:
        panel.sort_by(
            [common_builders.TableSortByFieldState().display_name(sort.removeprefix("-")).desc(sort.startswith("-"))]
        )
    if nothing is not None:
        panel.no_value(nothing)
    return panel


#: For a column of a table: the cell has the colour of its value.
COLOURED: Final = ("custom.cellOptions", {"type": "color-background", "mode": "basic"})


# Dashboards


def environment() -> cog.Builder[dashboard.VariableModel]:
    """Return the variable that chooses the environment: each has a Prometheus, named after it."""
    return (
        builders.DatasourceVariable("environment")
        .label("Environment")
        .type("prometheus")
        .current(dashboard.VariableOption(text="streampulse-prometheus", value="streampulse-prometheus"))
    )


def numbers() -> cog.Builder[dashboard.VariableModel]:
    """Return the variable that chooses the environment whose tables are read."""
    return (
        builders.DatasourceVariable("numbers")
        .label("Environment")
        .type("grafana-postgresql-datasource")
        .current(dashboard.VariableOption(text="streampulse-postgres", value="streampulse-postgres"))
    )


def host(metric: str, name: str = "host") -> cog.Builder[dashboard.VariableModel]:
    """Return the variable that chooses hosts.

    :param metric: PromQL's selector of the series whose label ``host`` is asked for.
    :param name: links from alerts choose ``host``; where that would hide what is on others, it has another name.
    """
    query = f"label_values({metric}, host)"
    return (
        builders.QueryVariable(name)
        .label(name.capitalize())
        .datasource(METRICS)
        .query({"query": query, "refId": name, "qryType": 1})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )


def board(
    name: str,
    description: str,
    variables: Sequence[cog.Builder[dashboard.VariableModel]],
    content: Sequence[tuple[str, Sequence[Panel]]],
    *,
    since: str = "now-1h",
) -> dashboard.Dashboard:
    """Return a dashboard.

    :param name: one of :data:`DASHBOARDS`.
    :param description: what it answers.
    :param content: headings of rows, each with its panels from left to right.
    :param since: the beginning of the time range at first.
    """
    made = (
        builders.Dashboard(f"streampulse · {DASHBOARDS[name]}")
        .uid(uid(name))
        .description(" ".join(description.split()))
        .tags([TAG])
        .timezone("utc")
        .readonly()
        .refresh("30s")
        .time(since, "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    )
    for variable in variables:
        made.with_variable(variable)
    for annotation in _annotations():
        made.annotation(_Annotation(annotation))
    made.link(
        builders.DashboardLink("Dashboards")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
    made.link(
        builders.DashboardLink("Runbooks")
        .type(dashboard.DashboardLinkType.LINK)
        .url(f"{RUNBOOKS}/index.html")
        .icon("doc")
        .target_blank(True)
    )
    for index, (heading, row) in enumerate(content):
        # Numbers from 1000 on are those of the rows.
        made.with_row(builders.Row(heading).id(1000 + index))
        for panel in row:
            made.with_panel(panel)
    return made.build()


def _annotations() -> list[Annotation]:
    deploys = [
        Annotation(
            f"Deploys of the {what}", "blue", _NEW_VERSION.format(metric=metric), f"Deploy: {what}", "{{version}}"
        )
        for what, metric in (("job", "streampulse_job_build_info"), ("API", "streampulse_api_build_info"))
    ]
    pages = Annotation(
        "Pages", BAD, 'ALERTS{alertstate="firing", severity="page"}', "{{alertname}}", "{{service}} {{host}}"
    )
    return [*deploys, pages]
