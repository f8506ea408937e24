"""The dashboards: readable, without numbers of their own, and leading somewhere."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from dashboard_queries import MAY_BE_EMPTY, boards, panels, queries

from streampulse.core.errors import OperatorError
from streampulse_ops import services
from streampulse_ops.monitoring import dashboards, rules

FOLDER = Path(__file__).parents[3] / dashboards.FOLDER
BOARDS = boards()
every_board = pytest.mark.parametrize("uid", BOARDS)


def variables(uid: str) -> set[str]:
    return {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}


def test_each_committed_dashboard_has_a_source() -> None:
    assert set(BOARDS) == {f"streampulse-{name}" for name in dashboards.names()}


def test_an_alert_of_a_host_opens_the_figures_of_that_host() -> None:
    """Links of alerts set `host`. Where that would hide other hosts' part, the variable has another name."""
    with_host = {uid for uid in BOARDS if "host" in variables(uid)}
    assert with_host == {"streampulse-kafka", "streampulse-postgres", "streampulse-api", "streampulse-host"}


@every_board
def test_ids_are_unique_and_panels_do_not_overlap(uid: str) -> None:
    ids = [panel["id"] for panel in BOARDS[uid]["panels"]]
    assert len(ids) == len(set(ids))
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARDS[uid]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, f"{panel['title']} is wider than the page"
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


@every_board
def test_a_panel_says_in_sentences_how_to_read_it(uid: str) -> None:
    for panel in panels(BOARDS[uid]):
        assert re.fullmatch(r"\S+( \S+){3,}\.", panel["description"]), panel["title"]


@pytest.mark.parametrize("name", dashboards.names())
def test_a_colour_changes_at_a_value_that_alerts_use(name: str) -> None:
    """0 and 1 are up or down, none or one, and a spent budget."""
    source = "\n".join((FOLDER / file).read_text(encoding="utf-8") for file in (f"{name}.yml.j2", "macros.j2"))
    for step in re.findall(r"(?:orange_from|red_from|red_below): (.+)", source):
        assert re.fullmatch(r"[01]|<< .+ >>", step), step


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"red_form": 1}, "an unknown key red_form"),
        ({"runbook": "KafkaUp"}, "an unknown alert KafkaUp"),
        ({"dashboard": ["kafka", "flink"]}, "an unknown dashboard flink"),
        ({"description": None}, "no description"),
    ],
)
def test_a_mistake_in_a_panel_is_one_line(wrong: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = dashboards.document
    panel = {"stat": "Brokers", "id": 1, "description": "How many there are.", "value": "sum(up)", **wrong}
    board = {**read("kafka"), "rows": {"One": [{key: value for key, value in panel.items() if value is not None}]}}
    monkeypatch.setattr(dashboards, "document", lambda name: board if name == "kafka" else read(name))
    with pytest.raises(OperatorError, match=rf"kafka.yml.j2: Brokers has {said}; common.yml.j2 lists the keys"):
        dashboards.dashboard("kafka")


@pytest.mark.parametrize(
    ("text", "said"), [("<< limits.speed.value >>", "has no attribute 'speed'"), ("a: b: c", "mapping values")]
)
def test_a_file_that_cannot_be_read_is_one_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = rules.environment
    (tmp_path / "broken.yml.j2").write_text(text, encoding="utf-8")
    monkeypatch.setattr(rules, "environment", lambda _: read(tmp_path))
    with pytest.raises(OperatorError, match=rf"broken\.yml\.j2 cannot be read: .*{said}") as caught:
        dashboards.document("broken")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", sorted(set(re.findall(r'"url": "([^"]*)"', json.dumps(BOARDS)))))
def test_every_link_leads_somewhere(url: str) -> None:
    if match := re.match(r"/d/(streampulse-[a-z]+)\?", url):
        chosen = set(re.findall(r"\$\{(\w+):queryparam\}", url)) | set(re.findall(r"var-(\w+)=", url))
        assert chosen <= variables(match[1])
        assert "${__url_time_range}" in url
    elif match := re.fullmatch(r"@RUNBOOKS@/([a-z-]+)\.html", url):
        assert match[1] in {rule.runbook for rule in rules.alerts()} | {"index"}
    else:
        # The cell has the dashboard, or the alert's runbook.
        assert re.match(r"/d/streampulse-\$\{__value\.raw\}\?|@RUNBOOKS@/\$\{__value\.text\}\.html$", url), url


def test_every_service_of_the_table_leads_to_a_dashboard() -> None:
    (table,) = [panel for panel in panels(BOARDS["streampulse-overview"]) if panel["title"] == "Services"]
    (target,) = table["targets"]
    leads = dict(re.findall(r'"dashboard", "(\w+)", "(?:job)?", "([\w|-]*)"', target["expr"]))
    assert set(leads) <= set(dashboards.names())
    jobs = {job for pattern in leads.values() for job in pattern.split("|") if job}
    assert jobs <= {service.name for service in services.all_services()}


@every_board
def test_no_address_is_written_into_a_dashboard(uid: str) -> None:
    assert not re.search(r"://|\d+\.\d+\.\d+\.\d+", json.dumps(BOARDS[uid]))


def test_exceptions_are_of_queries_that_there_are() -> None:
    assert set(MAY_BE_EMPTY) <= {(query.dashboard, query.panel, query.name) for query in queries()}
