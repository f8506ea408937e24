"""Looks at Kafka: its clock, topics, replicas and transactions."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings, load
from streampulse.host.check.host import ANSWER_SECONDS, Finding, Host, fault, fine, look

CLOCKS_FILE: Final = Path("/etc/kafka/clocks.json")
TOPICS_FILE: Final = Path("/etc/kafka/topics.json")
#: A transaction that is open for longer holds back its partitions noticeably.
LONG_TRANSACTION_SECONDS: Final = 10


@look("clock", "kafka")
def clock(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Look whether the broker stays down because its clock is wrong."""
    from streampulse.host.clock import compared

    if host.properties(services["kafka"]).get("ActiveState") == "active":
        return
    is_wrong, text = compared(CLOCKS_FILE)
    if is_wrong:
        cause = f"the broker stays down until its clock is right: other clocks differ from it ({text})"
        yield fault("SP-CLOCK-002", "clock", cause, "timedatectl set-ntp true")


@look("kafka.topics", "kafka")
def topics(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Compare the topics with the deployment's settings."""
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    from streampulse.core.kafka import connected

    settings = load(KafkaSettings)
    if not TOPICS_FILE.is_file():
        raise OperatorError(f"{TOPICS_FILE} is missing, which says what the topics should be")
    wanted = json.loads(TOPICS_FILE.read_text(encoding="utf-8"))["topics"]
    admin = connected(KafkaAdminClient, ANSWER_SECONDS, **settings.client_arguments("streampulse-check"))
    try:
        known = {each["name"]: each for each in admin.describe_topics() if not each["error_code"]}
        present = [each["name"] for each in wanted if each["name"] in known]
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in present]
        found = admin.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    finally:
        admin.close()
    for topic in wanted:
        name = topic["name"]
        if name not in known:
            yield fault("SP-KAFKA-002", "kafka.topics", f"there is no topic {name}", "inv up")
            continue
        yield from _topic_findings(topic, known[name]["partitions"], {k: v["value"] for k, v in found[name].items()})


@look("kafka.transactions", "kafka")
def transactions(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Look whether a transaction holds back readers of the events: they wait for its end."""
    from streampulse.core.kafka import Topic

    with Topic(load(KafkaSettings), "streampulse-check", ANSWER_SECONDS) as topic:
        found = topic.transactions(LONG_TRANSACTION_SECONDS)
    for each in found:
        yield fault(
            "SP-KAFKA-007",
            "kafka.transactions",
            f"partitions {', '.join(map(str, each.partitions))} of {topic.name} wait for the open transaction of the"
            f" producer {each.producer}, which the broker aborts after {each.timeout_seconds:.0f} s",
            "inv logs kafka",
        )
    if not found:
        yield fine("kafka.transactions", f"none is open for more than {LONG_TRANSACTION_SECONDS} s")


def _topic_findings(
    wanted: dict[str, Any], partitions: list[dict[str, Any]], settings: dict[str, Any]
) -> Iterator[Finding]:
    name = wanted["name"]
    faults = []
    if len(partitions) != wanted["partitions"]:
        faults.append(
            fault(
                "SP-KAFKA-005",
                "kafka.topics",
                f"{name} has {len(partitions)} partitions, {wanted['partitions']} are wanted, and they are never "
                "changed in place",
                "inv reset",
            )
        )
    leaderless = [each["partition_index"] for each in partitions if each["leader_id"] < 0]
    if leaderless:
        cause = f"{name}, partitions {leaderless}: no leader"
        faults.append(fault("SP-KAFKA-003", "kafka.topics", cause, "inv logs kafka"))
    behind: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for each in partitions:
        absent = set(each["replica_nodes"]) - set(each["isr_nodes"])
        if absent and each["leader_id"] >= 0:
            behind[tuple(sorted(absent))].append(each["partition_index"])
    for brokers, numbers in behind.items():
        cause = f"{name}, partitions {numbers}: not in sync on brokers {list(brokers)}"
        faults.append(fault("SP-KAFKA-004", "kafka.topics", cause, "inv logs kafka"))
    for setting, value in wanted["settings"].items():
        if str(settings.get(setting)) != str(value):
            cause = f"{name} has {setting} {settings.get(setting)} instead of {value}"
            faults.append(fault("SP-KAFKA-006", "kafka.topics", cause, "inv up"))
    yield from faults or [fine("kafka.topics", f"{name}, {len(partitions)} partitions")]
