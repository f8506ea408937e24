"""The plan of a deploy, from a run of its playbooks in check mode."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streampulse_ops import ansible, services


@dataclass
class Host:
    """The changes of one host: of paths, by role, other tasks, and the units that restart, each with the reason."""

    paths: dict[str, list[str]] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    restarts: dict[str, str] = field(default_factory=dict)


@dataclass
class Plan:
    """The changes of every host."""

    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of changes."""
        return sum(
            sum(map(len, host.paths.values())) + len(host.tasks) + len(host.restarts) for host in self.hosts.values()
        )

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the run in check mode."""
        if event["event"] not in ("ok", "changed"):
            return
        host = self.hosts.setdefault(str(event["host"]), Host())
        part = ansible.part_name(str(event["part"]))
        unit = str(event.get("unit", ""))
        if unit:
            changed = {path for found in host.paths.values() for path in found}
            newer = sorted(changed & set(event["watch"]))
            if event["event"] == "changed":
                host.restarts[unit] = str(event["reason"])
            elif newer:
                host.restarts[unit] = f"{', '.join(newer)} would change"
        elif event.get("paths"):
            host.paths.setdefault(part, []).extend(event["paths"])
        elif event["event"] == "changed":
            host.tasks.append(str(event["task"]))

    def lines(self, before: str, after: str) -> list[str]:
        """Return the plan as people read it.

        :param before: name of the release that runs; empty where it is unknown.
        :param after: name of the release to deploy.
        """
        told = [f"plan: {before or 'an unknown release'} -> {after}"]
        for name, host in self.hosts.items():
            if not (host.paths or host.tasks or host.restarts):
                told.append(f"  {name}: nothing")
                continue
            told.append(f"  {name}")
            told += [f"    {part}: {', '.join(paths)}" for part, paths in host.paths.items()]
            told += [f"    task: {task}" for task in host.tasks]
            told += [f"    restart {unit}: {why}" for unit, why in host.restarts.items()]
        return told


def outages(kafka_hosts: int, restarts: Mapping[str, Host]) -> list[str]:
    """Return the outages that the plan cannot avoid."""
    unit = services.named("kafka").unit
    if kafka_hosts < 3 and any(unit in host.restarts for host in restarts.values()):
        return [f"  outage: Kafka has {kafka_hosts} broker and no second replica, so sending waits while it restarts"]
    return []
