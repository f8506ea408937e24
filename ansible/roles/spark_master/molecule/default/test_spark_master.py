"""The master answers, and keeps its identity and workers over a kill."""

import re
from typing import Any

from asking import get, get_json, kill, listening, settings, until

ENV = settings("spark")
UI = ENV["STREAMPULSE_SPARK_MASTER_UI"]


def state() -> dict[str, Any]:
    """Return the master's own report."""
    found: dict[str, Any] = get_json(f"{UI}/json/")
    return found


def test_the_server_for_submissions_does_not_listen() -> None:
    # It runs any program that it receives.
    assert listening(6066) == set()


def test_its_metrics_agree_with_its_state() -> None:
    _, text = get(f"{UI}/metrics/master/prometheus/")
    shown = {name: float(value) for name, value in re.findall(r"^(\w+)\{type=\"gauges\"\} (\S+)$", text, re.MULTILINE)}
    for name, key in (("workers", "workers"), ("apps", "activeapps")):
        assert shown[f"metrics_master_{name}_Value"] == len(state()[key])
    assert 0 < shown["metrics_jvm_heap_used_Value"] <= shown["metrics_jvm_heap_max_Value"]
    assert shown["metrics_master_aliveWorkers_Value"] <= shown["metrics_master_workers_Value"]
    assert shown["metrics_master_waitingApps_Value"] <= shown["metrics_master_apps_Value"]


def test_a_kill_changes_neither_its_identity_nor_its_workers() -> None:
    before = state()
    assert (before["status"], before["url"]) == ("ALIVE", ENV["STREAMPULSE_SPARK_MASTER"])
    kill("spark-master")
    until("the master is alive", 90, lambda: state()["status"] == "ALIVE", AssertionError)
    after = state()
    assert after["url"] == before["url"]
    assert {worker["id"] for worker in after["workers"]} >= {worker["id"] for worker in before["workers"]}
