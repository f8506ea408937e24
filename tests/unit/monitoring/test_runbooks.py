"""The runbooks: each alert has one, and every name in them exists."""

from __future__ import annotations

import datetime
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from promql_names import metric_names

from streampulse.host import cli, wait
from streampulse_ops import paths, services
from streampulse_ops.docs import pages as docs
from streampulse_ops.environments import environment
from streampulse_ops.monitoring import dashboards, metrics, rules, runbooks
from streampulse_ops.monitoring.runbooks import Runbook, Step

ROOT = Path(__file__).parents[3]
BOOKS = runbooks.load(ROOT)
STEPS = [(book, step) for book in BOOKS.values() for step in book.steps]
GROUPS = {service.group for service in services.all_services()} | {"monitoring"}
#: Units of streampulse that are no services.
MORE_UNITS = {"spark-classes.service"}
#: The system's own folders.
SYSTEM_PATHS = {"/", "/dev/null", "/var/log", "/var/cache", "/var/lib/prometheus", "/var/lib/postgresql"}
#: What changes something, as a word of a command.
CHANGING = re.compile(
    r"systemctl (?:start|stop|restart|reset-failed)|\b(?:mv|rm|apt-get|kill)\b|set-ntp|--vacuum|pg_terminate|VACUUM"
    r"|\./inv (?:up|down|smoke|(?:reset|recount)(?!.*--dry-run))"
)


def step_name(case: object) -> str:
    return case.name if isinstance(case, Runbook) else str(case.line) if isinstance(case, Step) else str(case)


every_book = pytest.mark.parametrize("book", BOOKS.values(), ids=step_name)
every_step = pytest.mark.parametrize(("book", "step"), STEPS, ids=step_name)


def text_of(book: Runbook) -> str:
    return (ROOT / runbooks.FOLDER / f"{book.name}.md").read_text(encoding="utf-8")


def test_every_alert_leads_to_the_page_that_lists_it() -> None:
    listed = {name: book.name for book in BOOKS.values() for name in book.alerts}
    assert listed == {alert.name: alert.runbook for alert in rules.alerts()}
    assert sum(len(book.alerts) for book in BOOKS.values()) == len(listed), "an alert is on two pages"


@every_book
def test_a_page_is_as_bad_as_the_worst_of_its_alerts(book: Runbook) -> None:
    order = ["page", "ticket", "none"]
    worst = min((order.index(alert.severity) for alert in rules.alerts() if alert.name in book.alerts), default=2)
    assert book.severity == order[worst]
    assert datetime.date(2026, 1, 1) < book.last_updated
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", book.name)


@every_book
def test_a_page_has_something_in_every_section_and_looks_before_it_changes(book: Runbook) -> None:
    assert all(len(text) > 20 for text in book.sections.values())
    looking = [step for step in book.steps if step.section == "Diagnosis"]
    assert looking
    assert not any(step.changes for step in looking if "./inv smoke" not in step.script)
    assert {step.section for step in book.steps} <= {"Diagnosis", "Resolution"}


@every_step
def test_a_command_is_right_shell(book: Runbook, step: Step) -> None:
    done = subprocess.run(["sh", "-n"], input=step.script, capture_output=True, text=True)
    assert done.returncode == 0, f"{book.name}:{step.line}: {done.stderr}"
    assert step.script.strip()
    assert step.host in GROUPS | {runbooks.CONTROL, runbooks.ANY_HOST}


@every_step
def test_a_command_says_whether_it_changes_anything(book: Runbook, step: Step) -> None:
    assert bool(CHANGING.search(step.script)) == step.changes, f"{book.name}:{step.line}"


@every_step
def test_tasks_options_and_commands_are_those_that_there_are(book: Runbook, step: Step) -> None:
    del book
    collection = docs.tasks(ROOT)
    tasks = re.findall(r"^\./inv (\S+)(.*)$", step.script, re.MULTILINE)
    assert bool(tasks) == (step.host == runbooks.CONTROL)
    for name, rest in tasks:
        assert name in collection.task_names
        known = {option for argument in collection[name].get_arguments() for option in argument.names}
        for option in re.findall(r"(?<!\S)-{1,2}([a-z][\w-]*)", rest):
            assert option.replace("-", "_") in known or option in known, f"inv {name} --{option}"
        assert '--env "${ENV:-local}"' in rest
    for name in re.findall(r"^streampulse ([a-z]+)", step.script, re.MULTILINE):
        assert name in cli.COMMANDS
    for name in re.findall(r"^streampulse wait ([a-z-]+)", step.script, re.MULTILINE):
        assert name in wait._PROBES


@every_book
def test_monitoring_is_repaired_with_full(book: Runbook) -> None:
    about = {alert.service for alert in rules.alerts() if alert.name in book.alerts}
    # A host may be one that only watches, and any unit may be one of those.
    full = {service.name for service in services.all_services() if service.full} | {"host"}
    watching = re.search(r"`(?:prometheus|alertmanager|probe|grafana|node_exporter|postgres_exporter)_", text_of(book))
    if about & full or any("{{" in service for service in about) or watching:
        for step in book.steps:
            assert not re.search(r"^\./inv (?:up|reset) (?!.*--full)", step.script, re.MULTILINE), step.script


@every_book
def test_every_unit_is_one_that_there_is(book: Runbook) -> None:
    known = {service.unit for service in services.all_services()} | MORE_UNITS | {"postgresql.service", "*.service"}
    for unit in re.findall(r"[\w@*.-]+\.service", text_of(book)):
        assert unit in known, unit


@every_book
def test_every_path_is_one_that_there_is(book: Runbook) -> None:
    sources = "\n".join(
        file.read_text(encoding="utf-8")
        for folder in ("ansible", "systemd", "docs/architecture.md")
        for file in ([ROOT / folder] if (ROOT / folder).is_file() else (ROOT / folder).rglob("*"))
        if file.is_file() and file.suffix in {".yml", ".j2", ".md", ".py", ""}
    )
    code = re.findall(
        r"`([^`]+)`", book.sections["Symptoms"] + book.sections["Diagnosis"] + book.sections["Resolution"]
    )
    for text in [*code, *(step.script for step in book.steps)]:
        for found in re.findall(r"(?<![\w.*$}])/(?:[\w.-]+/?)*", text):
            path = found.rstrip("/.") or "/"
            if path in SYSTEM_PATHS or path in {"/health", "/prometheus"} or path.endswith("console.log"):
                continue
            folder, _, name = path.removesuffix(".broken").rpartition("/")
            # Some are put together from a folder's variable and a name.
            assert f"{folder}/{name}" in sources or (
                folder in sources and re.search(f"/{re.escape(name)}['\"]", sources)
            ), path


@every_book
def test_every_alert_dashboard_and_metric_is_one_that_there_is(book: Runbook) -> None:
    text = text_of(book)
    names = {alert.name for alert in rules.alerts()}
    for word in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", text):
        assert word in names | {"OutOfMemoryError"}, word
    related = book.sections["Related Monitoring"]
    uids = {f"streampulse-{name}" for name in dashboards.names()}
    for uid in re.findall(r"`(streampulse-[a-z]+)`", related) + re.findall(r"dashboard `([\w-]+)`", text):
        assert uid in uids, uid
    known = {series for metric in metrics.catalogue() for series in (metric.name, *metric.series)} | rules.recorded()
    known |= {name for group in rules.groups() for rule in group["rules"] for name in metric_names(rule["expr"])}
    for name in re.findall(r"`((?:streampulse|node|pg|kafka)_[a-z_]+)`", related):
        assert name in known, name


@every_book
def test_every_variable_of_a_role_is_one_that_there_is(book: Runbook) -> None:
    defaults: set[str] = set()
    for file in (ROOT / "ansible/roles").glob("*/defaults/main.yml"):
        defaults |= set(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    prefixes = "kafka|job|api|generator|probe|postgres|prometheus|alertmanager|spark_worker"
    for name in re.findall(rf"`((?:{prefixes})_[a-z_]+)`", text_of(book)):
        if name.startswith(("spark_master", "kafka_server", "kafka_controller")) or name in GROUPS:
            continue
        assert name in defaults, name


def test_the_environment_that_commands_take_by_default_is_the_tasks_own() -> None:
    assert "local" in environment.names()
    assert paths.repository() == ROOT


PAGE = """---
severity: page
last_updated: 2026-02-03
alerts: [KafkaDown]
---
# Title

## Symptoms

s

## Diagnosis

```sh host=kafka changes=no expect="^active$"
systemctl is-active kafka.service
# ## no section
```

## Resolution

## Prevention

## Related Monitoring
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "kafka-down.md"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_page_is_read(tmp_path: Path) -> None:
    book = runbooks.read(written(tmp_path, PAGE))
    assert (book.name, book.title, book.severity, book.alerts) == ("kafka-down", "Title", "page", ("KafkaDown",))
    assert book.last_updated == datetime.date(2026, 2, 3)
    (step,) = book.steps
    assert (step.section, step.host, step.changes, step.line) == ("Diagnosis", "kafka", False, 14)
    assert step.expect is not None
    assert step.expect.search("x\nactive\ny")
    assert step.script.splitlines()[0] == "systemctl is-active kafka.service"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("---\nseverity", "severity", "begins without front matter"),
        ("severity: page\n", "", "must have severity, last_updated, alerts"),
        ("severity: page", "severity: [", "cannot be read"),
        ("2026-02-03", "soon", "has 'soon' for last_updated"),
        ("# Title\n", "", "has no title"),
        ("## Prevention\n", "", "has the sections Symptoms, Diagnosis, Resolution, Related Monitoring"),
        ("```sh host=kafka changes=no", "```sh changes=no", "kafka-down.md:14 must begin with"),
        ("```sh host=kafka", "```python host=kafka", "must begin with"),
        ("changes=no", "changes=maybe", "it must be yes or no"),
        ("^active$", "(", "no regular expression"),
        ("```\n\n## Resolution", "\n## Resolution", "begins a block that does not end"),
    ],
)
def test_a_page_that_is_wrong_is_refused_with_the_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in PAGE
    with pytest.raises(runbooks.RunbookError, match=re.escape(says)):
        runbooks.read(written(tmp_path, PAGE.replace(old, new, 1)))
