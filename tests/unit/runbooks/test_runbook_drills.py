"""Drills: their data, where they may run, and their proofs."""

from pathlib import Path
from typing import Any

import pytest

from streampulse import __version__
from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import paths
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.environments.session import Session
from streampulse_ops.machines.existing import Existing
from streampulse_ops.monitoring import findings, rules
from streampulse_ops.runbooks import drills, page
from streampulse_ops.services import all_services
from streampulse_ops.verbs import drill as verb

CHANGES = "# Changelog\n\n## [Unreleased]\n\n## [9.2.0] - 2030-01-03\n\n## [9.1.0]\n\n## [9.0.0]\n\n## [8.0.0]\n"


def environment(folder: Path, **variables: Any) -> Environment:
    host = Host("a", frozenset({"all", "kafka", "generator", "monitoring"}))
    return Environment("demo", folder, (host,), {"provider": "existing", **variables})


def test_every_drill_names_a_page_an_alert_a_code_and_groups() -> None:
    pages, alerts = page.load(paths.repository()), {each.name for each in rules.alerts()}
    groups = {each.group for each in all_services()} | {page.CONTROL}
    for each in drills.all_drills().values():
        assert each.name in pages
        assert bool(each.alert) == bool(each.code) == (pages[each.name].kind == "alert")
        assert each.alert in {"", *alerts}
        assert {each.code, *each.leaves} <= {"", *findings.codes()}
        assert {*each.broken, *each.heal} <= groups
        assert not any("systemctl stop" in script for script in each.broken.values())
    assert not drills.without().keys() & drills.all_drills().keys()


def test_drills_are_named_alone_together_or_in_rounds() -> None:
    assert [[each.name for each in one] for one in drills.named("kafka-down,api-down,kafka-down")] == [
        ["kafka-down", "api-down"]
    ]
    every = [each.name for one in drills.named("all") for each in one]
    assert sorted(every) == sorted(drills.all_drills())
    with pytest.raises(UsageError, match="kafka-dwn is not a drill"):
        drills.named("kafka-dwn")


def test_the_time_for_an_alert_follows_from_its_rule() -> None:
    assert drills.all_drills()["kafka-down"].within == 40 + drills.MORE_SECONDS


def test_a_drill_is_left_out_where_something_is_missing(tmp_path: Path) -> None:
    place, known = environment(tmp_path), drills.all_drills()
    assert drills.lacks(known["kafka-down"], place) == ""
    assert drills.lacks(known["api-down"], place) == "no host in group api"
    assert drills.lacks(known["host-down"], place) == "machines that streampulse makes"
    made = environment(tmp_path, provider="nspawn")
    assert drills.lacks(known["host-down"], made) == "a host that is in the group generator alone"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "demo allows no drills: write `drills_allowed: true`"),
        ({"drills_allowed": "yes"}, "demo allows no drills"),
        ({"drills_allowed": True, "protected": True}, "demo is protected: no drill runs there"),
    ],
)
def test_a_drill_runs_only_where_the_inventory_allows_it(tmp_path: Path, variables: dict[str, Any], says: str) -> None:
    place = environment(tmp_path, **variables)
    session = Session(place, Existing(place), Screen())
    with pytest.raises(OperatorError, match=says):
        verb.drill(session, "kafka-down", dry_run=True, control=False, record=False)


def test_proofs_are_kept_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "proofs.yml"
    kafka, api = (drills.all_drills()[name] for name in ("kafka-down", "api-down"))
    drills.record(file, [drills.Result(kafka, "a", 33.6, 41.4)])
    drills.record(file, [drills.Result(api, "a", 50.0, 10.0)])
    found = drills.proofs(file)
    assert list(found) == ["api-down", "kafka-down"]
    assert str(found["kafka-down"]).endswith("told after 34 s, recovered after 41 s, 0 rows differ")
    assert found["kafka-down"].version == __version__
    assert str(drills.Proof("9.2.0", "abc", 0, 41, 0)) == "proven on 9.2.0 (abc): recovered after 41 s, 0 rows differ"
    assert drills.proofs(tmp_path / "none.yml") == {}


@pytest.mark.parametrize(
    ("version", "old"), [(__version__, False), ("9.2.0", False), ("9.1.0", False), ("9.0.0", True), ("1.0.0", True)]
)
def test_a_proof_is_old_when_more_than_two_versions_are_newer(version: str, old: bool) -> None:
    assert drills.old(drills.Proof(version, "abc", 1, 1, 0), CHANGES) is old
