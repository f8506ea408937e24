"""The runbooks: the repository's are well, and each kind of fault is named with file and line."""

import datetime
from pathlib import Path

import pytest

from streampulse_ops import paths
from streampulse_ops.runbooks import page, validate

PAGE = """---
kind: alert
severity: page
last_updated: 2026-02-03
alerts: [KafkaDown]
---
# Title

## Symptoms

Producers cannot send, see `kafka_heap` and [the disk](disk-almost-full.md).

## Diagnosis

1. Is it running?

```sh host=kafka changes=no expect="^active$" timeout=5 retry=20 else=2
systemctl is-active kafka.service
# ## no section
```

- `No space left on device`: the disk under `/var/lib/kafka/data` is full.

## Resolution

2. Start it:

```sh host=control changes=yes
./inv up --env "${ENV:-local}"
```

The job goes on by itself. Its table is `batch_ledger`, its topic `stream.events`.

## Prevention

Three hosts in the group `kafka`.

## Related Monitoring

Dashboard `streampulse-kafka`, alert `JobDown`, metric `streampulse_pipeline_lag_seconds`.
"""


def written(folder: Path, text: str) -> Path:
    file = folder / page.FOLDER / "kafka-down.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def about_the_page(folder: Path, text: str) -> list[str]:
    """Return the faults of one page; the other alerts have no runbook in this folder."""
    written(folder, text)
    return [fault for fault in validate.validate(folder) if "has no runbook that lists it" not in fault]


def test_every_runbook_of_the_repository_is_well() -> None:
    assert validate.validate(paths.repository()) == []


def test_a_page_of_an_alert_without_drill_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, PAGE).rename(tmp_path / page.FOLDER / "kafka-away.md")
    assert f"docs/runbooks/{file.name}:3: it has no drill" in "\n".join(validate.validate(tmp_path))


def test_a_page_is_read(tmp_path: Path) -> None:
    book = page.read(written(tmp_path, PAGE))
    assert (book.name, book.title, book.kind, book.severity) == ("kafka-down", "Title", "alert", "page")
    assert (book.alerts, book.last_updated) == (("KafkaDown",), datetime.date(2026, 2, 3))
    look, repair = book.steps
    assert (look.section, look.host, look.changes, look.line) == ("Diagnosis", "kafka", False, 17)
    assert (look.timeout, look.retry, look.otherwise, look.text) == (5, 20, "2", "1. Is it running?")
    assert look.expect is not None
    assert look.expect.search("x\nactive\ny")
    assert look.script.splitlines()[0] == "systemctl is-active kafka.service"
    assert (repair.changes, repair.timeout, repair.retry) == (True, page.CONTROL_SECONDS, 0)
    assert book.after[1].startswith("- `No space left on device`")


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("---\nkind", "kind", 1, "must begin with front matter"),
        ("severity: page\n", "", 1, "front matter must have kind, severity, last_updated, alerts"),
        ("severity: page", "severity: [", 1, "cannot be read"),
        ("2026-02-03", "soon", 4, "last_updated is 'soon'"),
        ("kind: alert", "kind: page", 2, "it must be alert or procedure"),
        ("# Title\n", "", 7, "has no title"),
        ("## Prevention\n", "", 9, "look at Prevention"),
        ("sh host=kafka changes", "sh changes", 17, "must begin with ```sh host=GROUP"),
        ("sh host=kafka", "python host=kafka", 17, "must begin with"),
        ("retry=20", "again=20", 17, "but not again"),
        ("changes=no", "changes=maybe", 17, "must be yes or no"),
        ("timeout=5", "timeout=soon", 17, "must be a number of seconds"),
        ("^active$", "(", 17, "not a regular expression"),
        ("# ## no section\n```", "# ## no section\n", 17, "does not end"),
        ("[KafkaDown]", "[KafkaDwn]", 5, "there is no alert KafkaDwn"),
        ("[KafkaDown]", "[JobDown]", 5, "the alert JobDown leads to job-down.md"),
        ("[KafkaDown]", "[]", 5, "a page of kind alert has no alert"),
        ("kind: alert", "kind: procedure", 5, "a procedure has an alert"),
        ("severity: page", "severity: ticket", 3, "the alerts say page"),
        ("Three hosts in the group `kafka`.", "None.", 34, "the section Prevention says nothing"),
        ("host=kafka", "host=kafkas", 17, "there is no group kafkas"),
        ("2. Start it", "3. Start it", 28, "must have its number, 2"),
        ("else=2", "else=3", 17, "else=3 is no later step"),
        ("else=2", "then=1", 17, "then=1 is no later step"),
        ("else=2", "then=over", 17, "must be a later step or end"),
        ("else=2", "else=kafka-dwn", 17, "else=kafka-dwn is no runbook"),
        ("host=kafka changes=no", "host=kafka changes=yes", 17, "Diagnosis changes something"),
        ("is-active kafka", "stop kafka", 17, "changes=no is not what the commands do"),
        ("changes=yes\n./inv up", "changes=no\n./inv stop kafka", 28, "changes=no is not what the commands do"),
        ("is-active kafka.service", "is-active kafka.service | (", 18, "shell: "),
        ("./inv up", "./inv upp", 28, "there is no task upp"),
        ("./inv up", "./inv up --ful", 28, "inv up has no option --ful"),
        (' --env "${ENV:-local}"', "", 28, "does not name the environment"),
        ("host=control", "host=kafka", 28, "tasks run on the control machine"),
        ("is-active kafka.service", "is-active kafak.service", 18, "there is no unit kafak.service"),
        ("/var/lib/kafka/data", "/var/lib/kafak/data", 22, "there is no path /var/lib/kafak/data"),
        ("`kafka_heap`", "`kafka_heep`", 11, "no role has the variable kafka_heep"),
        ("disk-almost-full.md", "disk-full.md", 11, "the link leads nowhere: disk-full.md"),
        ("table is `batch_ledger`", "table `batch_leger`", 32, "there is no table batch_leger"),
        ("stream.events", "stream.event", 32, "there is no topic stream.event"),
        ("`streampulse-kafka`", "`streampulse-kafak`", 40, "there is no dashboard streampulse-kafak"),
        ("`JobDown`", "`JobDwn`", 40, "there is no alert JobDwn"),
        ("lag_seconds", "lag_secnds", 40, "there is no metric streampulse_pipeline_lag_secnds"),
    ],
)
def test_each_fault_is_named_with_file_and_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    found = about_the_page(tmp_path, PAGE.replace(old, new, 1))
    assert any(fault.startswith(f"docs/runbooks/kafka-down.md:{line}: ") and says in fault for fault in found), found


def test_the_page_of_these_tests_is_well_and_alerts_without_a_runbook_are_named(tmp_path: Path) -> None:
    assert about_the_page(tmp_path, PAGE) == []
    missing = "docs/runbooks/job-down.md:1: the alert JobDown has no runbook that lists it"
    assert missing in validate.validate(tmp_path)


def test_the_programs_of_a_step_are_those_that_it_runs(tmp_path: Path) -> None:
    script = 'journalctl -u x | grep "a | b"; df -h / && LC_ALL=C sort'
    book = page.read(written(tmp_path, PAGE.replace("systemctl is-active kafka.service", script)))
    assert validate.tools_of(book.steps[0]) >= {"journalctl", "df", "sort"}
