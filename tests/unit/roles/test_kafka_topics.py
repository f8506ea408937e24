"""kafka-topics: impossible changes are rejected before anything is altered."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible_runs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).parents[3] / "ansible/roles/kafka/files/kafka-topics"
EVENTS = {"name": "events", "partitions": 4, "replicas": 1, "settings": {"min.insync.replicas": "1"}}


def load() -> Any:
    return ansible_runs.load(SCRIPT)


class Cluster:
    """Substitute for Kafka's admin client: one topic, and a record of its changes."""

    def __init__(self, replicas: list[list[int]]) -> None:
        self.partitions = [{"partition_index": n, "replica_nodes": nodes} for n, nodes in enumerate(replicas)]
        self.altered: list[str] = []
        self.names = ["events"]

    def describe_topics(self) -> list[dict[str, Any]]:
        return [{"name": name, "error_code": 0, "partitions": self.partitions} for name in self.names]

    def describe_configs(self, _resources: object, config_filter: str) -> dict[str, Any]:
        assert config_filter == "all"
        return {"topic": {"events": {"min.insync.replicas": {"value": "1"}}}}

    def alter_configs(self, resources: list[Any]) -> dict[str, dict[str, str]]:
        self.altered += [resource.name for resource in resources]
        return {"topic": {resource.name: "OK" for resource in resources}}

    def create_topics(self, topics: dict[str, Any], **_more: object) -> None:
        self.altered += topics

    def delete_topics(self, topics: list[str]) -> None:
        self.names = [name for name in self.names if name not in topics]


GROWN = {**EVENTS, "replicas": 3, "settings": {"min.insync.replicas": "2"}}
OTHER = {"name": "letters", "partitions": 1, "replicas": 3, "settings": {}}


@pytest.mark.parametrize(
    ("replicas", "wanted", "said"),
    [
        ([[1]] * 4, GROWN, "topic events has 1 replicas and 3 are wanted"),
        ([[1, 2, 3]] * 3 + [[1, 2]], GROWN, "topic events has 2 replicas and 3 are wanted"),
        ([[1, 2, 3]] * 4, EVENTS, "topic events has 3 replicas and 1 are wanted"),
        ([[1]] * 2, EVENTS, "topic events has 2 partitions and 4 are wanted"),
    ],
)
def test_another_shape_of_a_topic_is_refused(replicas: list[list[int]], wanted: dict[str, Any], said: str) -> None:
    cluster = Cluster(replicas)
    with pytest.raises(SystemExit, match=said) as caught:
        load().apply(cluster, [OTHER, wanted], check=False)
    assert "never changed in place" in str(caught.value)
    assert cluster.altered == []


def test_a_topic_of_the_right_shape_gets_its_settings() -> None:
    cluster = Cluster([[1, 2, 3]] * 4)
    changes = load().apply(cluster, [OTHER, GROWN], check=False)
    assert changes == ["made letters with 1 partitions", "events: min.insync.replicas from 1 to 2"]
    assert cluster.altered == ["letters", "events"]


def test_only_the_named_topics_are_deleted() -> None:
    cluster = Cluster([[1]] * 4)
    cluster.names = ["letters", "of.another", "events"]
    assert load().delete(cluster, ["events", "letters", "not.there"]) == ["deleted events", "deleted letters"]
    assert cluster.names == ["of.another"]
    assert load().delete(cluster, []) == []  # as with --check
    assert cluster.names == ["of.another"]


Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the script in this process on the files of a folder; a refusal raises SystemExit."""

    def command(*options: str, **files: dict[str, Any]) -> None:
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        places = ["--file", str(tmp_path / "topics.json"), "--data", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *places, *options])
        assert load().main() == 0

    return command


def test_a_topic_that_stores_something_does_not_become_another(tmp_path: Path, run: Run) -> None:
    old = {"topics": [EVENTS]}
    grown = {"topics": [GROWN]}
    before = ("--before", str(tmp_path / "new.json"))
    run(*before, topics=old, new=grown)  # nothing is stored yet, or it was wiped
    (tmp_path / "meta.properties").touch()
    with pytest.raises(SystemExit, match="has 1 replicas and 3 are wanted"):
        run(*before)

    more = {"topics": [{**EVENTS, "partitions": 8}]}
    with pytest.raises(SystemExit, match="has 4 partitions and 8 are wanted"):
        run(*before, new=more)
    run(*before, new={"topics": [{**EVENTS, "settings": {"retention.ms": "1"}}]})

    run("--forget")
    run(*before, new=more)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.sets(st.integers(1, 9), min_size=3), st.sets(st.integers(1, 9)))
def test_replicas_are_spread_evenly_and_only_those_move_that_must(
    replicas: int, partitions: int, brokers: set[int], others: set[int]
) -> None:
    nodes = sorted(brokers | others)[: max(replicas, 3)]
    before = {("events", n): [nodes[(n + each) % len(nodes)] for each in range(replicas)] for n in range(partitions)}
    moved = load().moves(before, brokers)
    after = {**before, **moved}
    assert all(len(set(each)) == replicas and set(each) <= brokers for each in after.values())
    load_of = [sum(each.count(node) for each in after.values()) for node in brokers]
    assert max(load_of) - min(load_of) <= 1
    assert load().moves(after, brokers) == {}
    # A replica leaves a broker that goes, or one that has more than its share.
    left = sum(len(set(before[name]) - set(after[name])) for name in before)
    share = partitions * replicas // len(brokers)
    held = {node: sum(each.count(node) for each in before.values()) for node in nodes}
    assert left <= sum(held[node] if node not in brokers else max(held[node] - share, 0) for node in nodes)


def test_replicas_that_find_no_broker_stay() -> None:
    with pytest.raises(SystemExit, match="events-0 has 2 replicas and 1 brokers are left"):
        load().moves({("events", 0): [1, 2]}, {1})


@pytest.mark.parametrize(
    ("replicas", "in_sync", "minimum", "held"),
    [
        ([1, 2, 3], [1, 2, 3], 2, False),
        ([1, 2, 3], [1, 2], 2, True),  # one of the two others is behind
        ([1, 2, 3], [2, 3], 2, False),  # this broker is behind: the partition does without it already
        ([1], [1], 1, False),  # no spare replica, and none to wait for
        ([1, 2], [1, 2], 1, False),
    ],
)
def test_a_broker_restarts_only_while_every_partition_has_a_replica_to_spare(
    replicas: list[int], in_sync: list[int], minimum: int, held: bool
) -> None:
    class Replicated(Cluster):
        def describe_configs(self, _resources: object, config_filter: str) -> dict[str, Any]:
            assert config_filter == "all"
            return {"topic": {"events": {"min.insync.replicas": {"value": str(minimum)}}}}

    cluster = Replicated([replicas])
    cluster.partitions[0]["isr_nodes"] = in_sync
    module = load()
    assert module.without_spare(cluster, 1) == (["events-0"] if held else [])
    if held:
        with pytest.raises(SystemExit, match="without broker 1, events-0 would fall below"):
            module.wait_for_spare(cluster, 1, 0)


@pytest.mark.parametrize(("leader", "in_sync", "passes"), [(1, [2, 1], True), (2, [2], False), (-1, [1, 2], False)])
def test_the_gate_after_a_broker_waits_for_leaders_and_replicas(leader: int, in_sync: list[int], passes: bool) -> None:
    cluster = Cluster([[1, 2]])
    cluster.partitions[0] |= {"leader_id": leader, "isr_nodes": in_sync}
    if passes:
        assert load().wait_in_sync(cluster, 0) == "1 partitions in sync"
    else:
        with pytest.raises(SystemExit, match="events-0 is without a leader or a replica"):
            load().wait_in_sync(cluster, 0)
