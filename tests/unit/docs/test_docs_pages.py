"""Hand-written pages: links resolve, tasks exist, the example producer sends valid events."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml

from streampulse.events import parse, partition_of
from streampulse.host import cli
from streampulse.job import dead_letters
from streampulse.job.store import state
from streampulse_ops import services
from streampulse_ops.docs import pages as docs

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "requirements/README.md")]
    + list((ROOT / "docs").rglob("*.md"))
)
#: Words that follow `inv` where a name is to be put in, or an option that is Invoke's own.
PLACEHOLDERS = {"TASK", "SERVICE"}


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the common renderers make them."""
    found = set()
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            title = line.lstrip("#").strip().lower().replace("`", "")
            found.add(re.sub(r"[^\w\- ]", "", title).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    # What stands in backticks is no link, but may be a link's label.
    text = re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{target}: there is no {linked}"
        assert ROOT in linked.parents, f"{target} leads out of the repository"
        if anchor:
            assert anchor in anchors(linked), f"{target}: no such heading"


def task_names() -> set[str]:
    return {name.partition(".")[0] for name in docs.tasks(ROOT).task_names}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_task_subcommand_and_page_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # In code only: "inv" is no word of a sentence, and a command may be broken over two lines.
    named = set(re.findall(r"(?:\./|`|# |\$ |^ {4})inv\s+(?:--env\s+\S+\s+)?([A-Za-z][\w-]*)", text, re.MULTILINE))
    assert named - PLACEHOLDERS <= task_names()
    assert set(re.findall(r"`streampulse ([a-z][\w-]*)", text)) <= set(cli.COMMANDS)
    assert set(re.findall(r"inv open ([a-z]+)", text)) <= set(services.pages())


def test_the_versions_of_the_jars_are_those_that_are_pinned() -> None:
    jars = yaml.safe_load((ROOT / "artifacts.yml").read_text(encoding="utf-8"))
    text = (ROOT / "docs/decisions/0002-jars-from-maven-central.md").read_text(encoding="utf-8")
    for part in jars:
        for coordinate in jars[part]["jars"]:
            _, artifact, version = coordinate.split(":")
            assert re.search(rf"`{re.escape(artifact)}`[^|]*\| {re.escape(version)} \|", text), coordinate
    spark = re.search(r"^pyspark==(\S+)", (ROOT / "requirements/spark.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert spark
    assert f"| `pyspark` | {spark[1]} |" in text


def test_every_decision_is_listed_and_has_its_parts() -> None:
    folder = ROOT / "docs/decisions"
    records = sorted(file for file in folder.glob("0*.md"))
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[\d{4}\]\(([\w.-]+)\)", index, re.MULTILINE) == [file.name for file in records]
    for file in records:
        text = file.read_text(encoding="utf-8")
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Figures"], file.name


def test_the_figures_that_are_constants_are_those_of_the_code() -> None:
    letters = (ROOT / "docs/decisions/0004-dead-letters-exactly-once.md").read_text(encoding="utf-8")
    assert f"at {dead_letters._TRANSACTION_BYTES // 2**20} MiB of letters" in letters
    architecture = " ".join((ROOT / "docs/architecture.md").read_text(encoding="utf-8").split())
    assert f"At least {state.SNAPSHOT_EVERY_EVENTS:,} accepted events after the last one" in architecture


class Producer:
    """Stands for kafka-python's: takes what it is constructed with and keeps what is sent."""

    made: ClassVar["list[Producer]"] = []

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.sent: list[tuple[str, bytes, bytes]] = []
        Producer.made.append(self)

    def send(self, topic: str, *, key: bytes, value: bytes) -> SimpleNamespace:
        self.sent.append((topic, key, value))
        return SimpleNamespace(get=lambda timeout: timeout)


def snippet() -> str:
    text = (ROOT / "docs/send-your-own-events.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_producer_sends_events_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("kafka")
    module.KafkaProducer = Producer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kafka", module)
    Producer.made.clear()

    exec(compile(snippet(), "producer.py", "exec"), {})  # noqa: S102 - the page's own code is what is tested

    (producer,) = Producer.made
    variables = yaml.safe_load((ROOT / "ansible/playbooks/group_vars/all/streampulse.yml").read_text(encoding="utf-8"))
    ports = yaml.safe_load((ROOT / "ansible/ports/defaults.yml").read_text(encoding="utf-8"))["all"]["vars"]
    assert producer.settings["bootstrap_servers"].endswith(f":{ports['streampulse_default_ports']['kafka']}")
    events = []
    for topic, key, value in producer.sent:
        assert topic == variables["streampulse_topic"]
        events.append(parse(key, value, partition_of(key, 4), 4))
    assert [event.event_type for event in events] == ["viewer_join", "chat_message", "donation"]
    assert len({event.event_id for event in events}) == 3
    assert events[2].amount_cents == 510


def test_kafkas_own_client_takes_the_producers_settings() -> None:
    from kafka import KafkaProducer

    code = snippet()
    (arguments,) = re.findall(r"KafkaProducer\((.+)\)$", code, re.MULTILINE)
    given = set(re.findall(r"(\w+)=", arguments))
    assert given <= set(KafkaProducer.DEFAULT_CONFIG)
    # Without a partitioner of one's own it is Kafka's.
    assert "partitioner" not in given
