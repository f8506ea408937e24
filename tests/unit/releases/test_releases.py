"""Bundles of releases, what may follow what, the plan, and the log of deploys."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments import environment as environments
from streampulse_ops.environments.session import Session
from streampulse_ops.machines.existing import Existing
from streampulse_ops.releases import bundle, history
from streampulse_ops.releases.history import Look
from streampulse_ops.releases.plan import Plan, outages
from streampulse_ops.verbs import releases

HOSTS = "all: {vars: {provider: existing}, hosts: {a: {}}}\n"
MANIFEST = {
    "name": "v1-0123456789",
    "interface": bundle.INTERFACE,
    "schema": 8,
    "oldest_schema": 6,
    "state_read": [1, 2],
    "state_written": 2,
    "kafka_metadata": "4.3",
}


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> environments.Environment:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STREAMPULSE_INVENTORIES", str(tmp_path))
    (tmp_path / "demo/group_vars").mkdir(parents=True)
    (tmp_path / "demo/hosts.yml").write_text(HOSTS)
    (tmp_path / "demo/vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n")
    (tmp_path / "demo/group_vars/all.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n")
    return environments.load("demo")


def test_a_bundle_has_all_that_a_deploy_applies_and_no_secret(inventory: environments.Environment) -> None:
    made = bundle.make(inventory, 1)
    first = made.file.read_bytes()
    with tarfile.open(made.file) as archive:
        names = set(archive.getnames())
    assert {"manifest.json", "ansible/playbooks/site.yml", "systemd/kafka.service.j2", "inventory/hosts.yml"} <= names
    assert not [name for name in names if "vault" in name or ("group_vars/all.yml" in name and "inventory" in name)]
    made.file.unlink()
    assert bundle.make(inventory, 1).file.read_bytes() == first
    for name in ("group_vars/kafka", "group_vars/api.json", "group_vars/job.yaml", "group_vars/.hidden", "password"):
        (inventory.folder / name).write_text("{}")
    with tarfile.open(bundle.make(inventory, 1).file) as archive:
        more = {name.partition("/")[2] for name in set(archive.getnames()) - names}
    assert more == {"group_vars/kafka", "group_vars/api.json", "group_vars/job.yaml"}
    unpacked = made.environment(inventory)
    assert (unpacked.folder / "vault.yml").resolve() == inventory.folder / "vault.yml"
    assert (unpacked.root / "ansible/services.yml").exists()


def test_other_settings_make_another_release(inventory: environments.Environment) -> None:
    before = bundle.make(inventory, 1)
    inventory.inventory.write_text(HOSTS.replace("{}", "{rate: 3}"))
    assert bundle.make(inventory, 1).digest != before.digest
    assert bundle.make(inventory, drivers=2).manifest["state_written"] == 3


def test_a_file_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_text("no archive")
    with pytest.raises(OperatorError, match=r"x\.tar\.gz is not a release's bundle: rm "):
        bundle.opened(tmp_path / "x.tar.gz")


def test_a_name_that_no_release_has_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="inv releases lists them"):
        bundle.check_name("../x")


@pytest.mark.parametrize(
    ("target", "running", "kafka", "reason"),
    [
        ({}, {}, "4.3", ""),
        ({"schema": 6}, {}, "4.3", ""),
        ({"schema": 5}, {}, "4.3", "serve releases from 0006 on"),
        ({"state_read": [1]}, {}, "4.3", "the job's state has format 2"),
        ({"kafka_metadata": "4.1"}, {}, "4.1", ""),
        ({"kafka_metadata": "4.1"}, {}, "4.3", "Kafka's metadata has version 4.3"),
        ({"interface": 0}, {}, "", "git checkout v1"),
    ],
)
def test_a_release_that_would_lose_something_is_refused(
    target: dict[str, Any], running: dict[str, Any], kafka: str, reason: str
) -> None:
    found = bundle.why_not({**MANIFEST, **target}, {**MANIFEST, **running}, 6, kafka)
    assert reason in found
    assert bool(found) is bool(reason)


def test_a_plan_names_the_services_that_restart_with_the_reason() -> None:
    plan = Plan()
    base = {"host": "a", "part": "release", "task": "t"}
    plan.take({**base, "event": "changed", "paths": ["/opt/streampulse/current"]})
    unit = {**base, "part": "job", "watch": ["/opt/streampulse/current"], "reason": ""}
    plan.take({**unit, "event": "ok", "unit": "streampulse-job.service"})
    plan.take({**unit, "event": "ok", "unit": "kafka.service", "watch": ["/etc/kafka/server.properties"]})
    plan.take({**unit, "event": "changed", "unit": "x.service", "watch": [], "reason": "it was failed"})
    plan.take({**base, "event": "skipped"})
    assert plan.lines("v0-1", "v1-2") == [
        "plan: v0-1 -> v1-2",
        "  a",
        "    release: /opt/streampulse/current",
        "    restart streampulse-job.service: /opt/streampulse/current would change",
        "    restart x.service: it was failed",
    ]
    assert plan.count == 3
    plan.hosts["a"].restarts["kafka.service"] = "it"
    assert "outage: Kafka has 1 broker" in outages(1, plan.hosts)[0]
    assert outages(3, plan.hosts) == []


def test_the_log_says_what_runs_and_what_failed() -> None:
    def event(deploy: str, kind: str, release: str, **more: object) -> dict[str, Any]:
        return {"at": "2026-01-31T09:30:00Z", "deploy": deploy, "event": kind, "release": release, **more}

    said = {"by": "a@b", "hosts": ["a"]}
    events = [
        event("1", "begun", "v1-1", **said),
        event("1", "good", "v1-1", manifest=MANIFEST, **said),
        event("2", "begun", "v2-2", manifest={**MANIFEST, "oldest_schema": 7, "kafka_metadata": "5.0"}, **said),
        event("2", "failed", "v2-2", reason="api on a: it answers wrongly", **said),
    ]
    seen = Look(events, {}, ["a"], monitored=False)
    assert (seen.running, seen.kafka, seen.failed("2"), seen.failed("1")) == (
        "v1-1",
        "4.3",
        "api on a: it answers wrongly",
        "",
    )
    assert (seen.unfinished, seen.rollback, seen.oldest_schema) == (events[-1], "v1-1", 7)
    back = Look([*events, event("2", "back", "v1-1", **said)], {}, ["a"], monitored=False)
    assert (back.running, back.unfinished) == ("v1-1", None)
    assert [row["result"] for row in releases.rows(back)] == ["good", "failed, v1-1 runs again"]


@pytest.mark.parametrize(
    ("good", "before"),
    [
        ("a", ""),
        ("a b c", "b"),
        ("a b c b", "a"),
        ("a b c b a", ""),
        ("a b c b d", "b"),
        # A commit that changes no file gives a release another name.
        ("a b newer-b", "a"),
    ],
)
def test_a_rollback_goes_one_release_further_back_each_time(good: str, before: str) -> None:
    events = [{"event": "good", "release": name, "deploy": str(at)} for at, name in enumerate(good.split())]
    assert Look(events, {}, ["a"], monitored=False).rollback == before


class Here:
    """Stands for a connection to a host: commands run here."""

    def __init__(self, *_: object) -> None:
        return

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def run(self, arguments: list[str], **_: object) -> tuple[int, str, str]:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


def test_a_host_of_no_group_keeps_the_log_like_the_others(
    inventory: environments.Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(inventory, Existing(inventory), Screen())
    monkeypatch.setattr(history, "Remote", Here)
    monkeypatch.setattr(history, "FOLDER", str(tmp_path / "var/releases"))
    monkeypatch.setattr(history, "LOG", str(tmp_path / "var/releases/log.jsonl"))
    assert (history.look(session).events, history.look(session).serving) == ([], [])
    history.note(session, "1", "good", "v1-1", manifest=MANIFEST)
    assert history.look(session).running == "v1-1"
    # A host that cannot keep the log loses nothing of its own either.
    monkeypatch.setattr(history, "FOLDER", str(tmp_path / "demo/hosts.yml/releases"))
    monkeypatch.chdir(tmp_path)
    mine = [tmp_path / f"mine-{number}.tar.gz" for number in range(8)]
    for file in mine:
        file.touch()
    with pytest.raises(OperatorError, match="a did not keep the log"):
        history.note(session, "2", "good", "v2-2")
    assert all(file.exists() for file in mine)
