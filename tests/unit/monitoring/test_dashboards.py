"""The committed dashboards: what the code says, complete, consistent, and leading somewhere."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboard_queries import MAY_BE_EMPTY, boards, panels, queries
from promql_names import metric_names

from streampulse_ops import services
from streampulse_ops.monitoring import dashboards, metrics, rules

ROOT = Path(__file__).parents[3]
BOARDS = boards()
#: What a figure is compared with that is no threshold of an alert: up or down, one or none, a budget that is spent.
PLAIN_STEPS = {0.0, 1.0}


#: Metrics of other programs that only dashboards use. A test on a booted machine asks whether they exist.
FOREIGN = {
    "prometheus_tsdb_head_series": "Prometheus",
    "prometheus_tsdb_storage_blocks_bytes": "Prometheus",
    "scrape_duration_seconds": "Prometheus",
    "process_cpu_seconds_total": "every client library",
    "process_resident_memory_bytes": "every client library",
    **dict.fromkeys(
        (
            *("node_boot_time_seconds", "node_cpu_seconds_total", "node_load5"),
            *("node_disk_read_bytes_total", "node_disk_written_bytes_total"),
            *("node_network_receive_bytes_total", "node_network_transmit_bytes_total"),
        ),
        "node exporter",
    ),
    **dict.fromkeys(
        (
            "kafka_controller_kafkacontroller_activebrokercount",
            "kafka_controller_kafkacontroller_activecontrollercount",
            "kafka_controller_kafkacontroller_fencedbrokercount",
            *(f"kafka_log_log_{name}" for name in ("logendoffset", "logstartoffset", "size")),
            *(f"kafka_network_requestmetrics_{name}" for name in ("errors_total", "requests_total", "totaltimems")),
            "kafka_network_requestchannel_requestqueuesize",
            "kafka_network_socketserver_networkprocessoravgidlepercent",
            *(f"kafka_server_brokertopicmetrics_{name}_total" for name in ("bytesin", "bytesout", "messagesin")),
            "kafka_server_kafkarequesthandlerpool_requesthandleravgidlepercent",
            *(f"kafka_server_replicamanager_{name}_total" for name in ("isrexpands", "isrshrinks")),
            "kafka_server_replicamanager_leadercount",
            "kafka_server_replicamanager_underminisrpartitioncount",
            *("jvm_gc_collection_seconds_sum", "jvm_memory_max_bytes", "jvm_memory_used_bytes"),
        ),
        "the agent in Kafka's JVM",
    ),
    **dict.fromkeys(
        (
            *(f"metrics_master_{name}_Value" for name in ("aliveWorkers", "apps", "waitingApps")),
            *(f"metrics_worker_{name}_Value" for name in ("coresFree", "coresUsed", "executors")),
            *(f"metrics_worker_{name}_MB_Value" for name in ("memFree", "memUsed")),
            "metrics_jvm_heap_used_Value",
        ),
        "Spark",
    ),
    **dict.fromkeys(
        (
            *(f"pg_stat_database_{name}" for name in ("blks_hit", "blks_read", "deadlocks", "temp_bytes")),
            *(f"pg_stat_database_tup_{name}" for name in ("deleted", "inserted", "updated")),
            *(f"pg_stat_database_xact_{name}" for name in ("commit", "rollback")),
            *("pg_database_size_bytes", "pg_locks_count"),
        ),
        "postgres exporter",
    ),
}


every_board = pytest.mark.parametrize("uid", BOARDS)


def strings(value: Any) -> Iterator[str]:
    """Yield every text of a JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(strings, [*value.keys(), *value.values()]))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(strings, value))


@pytest.mark.parametrize("file", dashboards.FILES)
def test_what_is_committed_is_what_the_code_says(file: str) -> None:
    made = dashboards.FILES[file](ROOT)
    assert made == dashboards.FILES[file](ROOT), "the same code makes different texts"
    assert (ROOT / file).read_text(encoding="utf-8") == made, "make it again: ./inv docs"


def test_there_is_one_file_for_each_dashboard() -> None:
    names = {f"streampulse-{name}" for name in dashboards.panels.DASHBOARDS}
    assert set(BOARDS) == names
    assert {file.name for file in (ROOT / "grafana/dashboards").iterdir()} == {f"{name}.json" for name in names}


@every_board
def test_a_dashboard_says_what_it_is_and_how_it_is_shown(uid: str) -> None:
    board = BOARDS[uid]
    assert board["title"].startswith("streampulse · ")
    assert len(board["description"]) > 40
    assert board["tags"] == ["streampulse"]
    assert (board["refresh"], board["timezone"], board["editable"]) == ("30s", "utc", False)
    # 39 to 41 are the forms of Grafana 11 and 12.
    assert 39 <= board["schemaVersion"] <= 41
    assert "id" not in board, "Grafana gives out its own"
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names[0] in ("environment", "numbers")
    # What an alert's link chooses there is what its dashboard shows of that host.
    hosts = {"streampulse-kafka", "streampulse-postgres", "streampulse-api", "streampulse-host"}
    assert ("host" in names) == (uid in hosts)
    marks = {annotation["name"] for annotation in board["annotations"]["list"]}
    assert marks == {"Deploys of the job", "Deploys of the API", "Pages"}


@every_board
def test_numbers_of_panels_are_unique_and_panels_do_not_overlap(uid: str) -> None:
    board = BOARDS[uid]
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    assert all(panel["id"] < 1000 for panel in panels(board)), "numbers from 1000 on are those of rows"
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, f"{panel['title']} is wider than the page"
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


@every_board
def test_a_panel_has_title_unit_and_how_to_read_it(uid: str) -> None:
    for panel in panels(BOARDS[uid]):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert re.fullmatch(r"\S+( \S+){3,}\.", panel["description"]), panel["title"]


@every_board
def test_a_panel_asks_the_environment_that_is_chosen(uid: str) -> None:
    chosen = "${numbers}" if uid == "streampulse-audience" else "${environment}"
    for panel in panels(BOARDS[uid]):
        assert {asked["datasource"]["uid"] for asked in (panel, *panel["targets"])} == {chosen}, panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted({"A", *references}), panel["title"]


def allowed_steps() -> set[float]:
    """Return every limit of values.yml, as alerts compare with it, and as a share of what is left."""
    values = rules.values()
    limits = [limit for limit in vars(values.limits).values() if hasattr(limit, "value")]
    found = {limit.value for limit in limits}
    # A count above a limit is a count from the next one on.
    found |= {limit.value + 1 for limit in limits if limit.unit == "count"}
    # What is shown as in use, where the limit is on what is free.
    found |= {1 - limit.value for limit in limits if limit.unit == "ratio"}
    found |= {values.fresh_seconds, values.complete_seconds, values.quick_seconds}
    found |= {sli.objective for slo in vars(values.objectives).values() for sli in vars(slo.indicators).values()}
    return found | {burn.factor for burn in values.burns}


@every_board
def test_colours_change_where_alerts_begin_to_count(uid: str) -> None:
    for panel in panels(BOARDS[uid]):
        first, *steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert first is None
        assert steps == sorted(steps)
        assert set(steps) <= allowed_steps() | PLAIN_STEPS, f"{panel['title']}: not in values.yml"


PROMQL = [query for query in queries() if query.language == "promql"]
OURS = {name: metric for metric in metrics.catalogue() for name in metric.series}


def test_a_query_reads_only_metrics_and_labels_that_there_are() -> None:
    for query in PROMQL:
        named = metric_names(query.text)
        assert named <= set(OURS) | rules.recorded() | set(metrics.FOREIGN) | set(FOREIGN), query
        for name in named & set(OURS):
            labels = {*OURS[name].labels, "host", "job"} | ({"le"} if OURS[name].kind == "histogram" else set())
            for matchers in re.findall(rf"(?<![\w:]){name}\{{([^}}]*)\}}", query.text):
                assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= labels, f"{query}: {name}"


def test_no_foreign_metric_is_listed_that_no_panel_uses() -> None:
    assert set(FOREIGN) <= {name for query in PROMQL for name in metric_names(query.text)}


def test_every_metric_of_ours_is_shown_somewhere() -> None:
    shown = {name for query in PROMQL for name in metric_names(query.text)}
    assert [metric.name for metric in metrics.catalogue() if not shown & set(metric.series)] == []


def links() -> list[tuple[str, str]]:
    found = re.compile(r'"url": "([^"]*)"')
    return [
        (uid, json.loads(f'"{url}"'))
        for uid, board in BOARDS.items()
        for url in sorted(set(found.findall(json.dumps(board, ensure_ascii=False))))
    ]


#: What the alerts' own test finds under docs/runbooks, and the page of all pages.
RUNBOOKS = {rule.runbook for rule in rules.alerts()} | {"index"}


@pytest.mark.parametrize(("uid", "url"), links())
def test_every_link_leads_somewhere(uid: str, url: str) -> None:
    if match := re.match(r"/d/(streampulse-[a-z]+)\?", url):
        assert match[1] in BOARDS
        chosen = set(re.findall(r"\$\{(\w+):queryparam\}", url)) | set(re.findall(r"var-(\w+)=", url))
        there = {variable["name"] for variable in BOARDS[match[1]]["templating"]["list"]}
        assert chosen <= there, f"{uid}: {match[1]} has no such variable"
        assert "${__url_time_range}" in url
    elif match := re.fullmatch(r"@RUNBOOKS@/([a-z-]+)\.html", url):
        assert match[1] in RUNBOOKS
    else:
        # Of a table's cell: which dashboard, or which page, is in the cell, and tested below.
        assert re.match(r"/d/streampulse-\$\{__value\.raw\}\?|@RUNBOOKS@/\$\{__value\.text\}\.html$", url), url


def test_every_alert_of_the_table_leads_to_its_runbook() -> None:
    (table,) = [panel for panel in panels(BOARDS["streampulse-overview"]) if panel["title"] == "Firing alerts"]
    (override,) = [each for each in table["fieldConfig"]["overrides"] if each["matcher"]["options"] == "what to do"]
    (mappings,) = [each["value"] for each in override["properties"] if each["id"] == "mappings"]
    shown = {alert: result["text"] for alert, result in mappings[0]["options"].items()}
    assert shown == {rule.name: rule.runbook for rule in rules.alerts()}


def test_every_service_of_the_table_leads_to_a_dashboard() -> None:
    (table,) = [panel for panel in panels(BOARDS["streampulse-overview"]) if panel["title"] == "Services"]
    (target,) = table["targets"]
    leads = dict(re.findall(r'"dashboard", "(\w+)", "(?:job)?", "([\w|-]*)"', target["expr"]))
    assert {f"streampulse-{name}" for name in leads} <= set(BOARDS)
    jobs = {job for pattern in leads.values() for job in pattern.split("|") if job}
    assert jobs <= {service.name for service in services.all_services()}


def host_names(document: Any) -> Iterator[str]:
    """Yield the hosts of an inventory."""
    for key, value in document.items():
        if key == "hosts":
            yield from value
        elif isinstance(value, dict):
            yield from host_names(value)


def test_nothing_is_bound_to_one_environment() -> None:
    inventories = list((ROOT / "ansible/inventories").glob("*/hosts.yml"))
    bound = {inventory.parent.name for inventory in inventories}
    for inventory in inventories:
        bound |= set(host_names(yaml.safe_load(inventory.read_text(encoding="utf-8"))))
    assert {"staging", "sp-local"} <= bound
    for uid, board in BOARDS.items():
        for text in strings(board):
            assert not set(re.findall(r"[\w.-]+", text)) & bound, f"{uid}: {text}"
            assert not re.search(r"\d+\.\d+\.\d+\.\d+", text), f"{uid} has an address: {text}"
            assert "://" not in text, f"{uid} has an address: {text}"


def test_sql_is_bounded_and_leaves_our_own_streams_out() -> None:
    statements = [query for query in queries() if query.language == "sql"]
    assert len(statements) > 10
    for query in statements:
        assert "left(stream_id, 2) <> '__'" in query.text, f"{query} counts streams of our own"
        history = query.text.count("FROM stream_metrics_minute")
        bounded = query.text.count("$__timeTo()::timestamptz - interval")
        assert history == bounded or query.text.endswith("LIMIT 1"), f"{query} reads as much as there is"


def test_exceptions_are_of_queries_that_there_are() -> None:
    there = {(query.dashboard, query.panel, query.name) for query in queries()}
    assert set(MAY_BE_EMPTY) <= there
