"""Drills: what each one breaks and expects, from ``drills.yml``, and the proofs that earlier runs left.

A proof of this repository's own machines is committed in :data:`PROOFS`. A proof of another environment stays in that
environment's state on the control machine.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from streampulse import __version__
from streampulse.core.errors import UsageError
from streampulse_ops import command, paths, services
from streampulse_ops.environments.environment import Environment
from streampulse_ops.monitoring import rules

#: The file of the drills, as people find it.
FILE: Final = "src/streampulse_ops/runbooks/drills.yml"
#: Proofs from this repository's own machines, by the runbook's name.
PROOFS: Final = "docs/runbooks/proofs.yml"
#: Seconds that an alert may take beyond its rule's `for`: scrapes time out, rules are evaluated, a group waits.
MORE_SECONDS: Final = 90
#: A proof of a version with this many newer versions says little about today's.
OLD_VERSIONS: Final = 2
_HEAD: Final = "---\n# Written by `inv drill NAME --record`: which runbooks repaired what their drills broke.\n"


@dataclass(frozen=True)
class Drill:
    """One drill; the head of ``drills.yml`` explains the fields. The name is its runbook's.

    A drill of a page of procedure has no alert and no code.
    """

    name: str
    alert: str
    cause: str
    code: str
    round: int
    broken: Mapping[str, str]
    heal: Mapping[str, str]
    within: int
    needs: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Proof:
    """What a drill has shown.

    :param told: seconds from the fault to the alert in Alertmanager; 0 for a page of procedure, which has no alert.
    :param recovered: seconds from the runbook's first step until alert and doctor were clear.
    :param rows: rows that differed from their recomputation afterwards.
    """

    version: str
    commit: str
    told: int
    recovered: int
    rows: int

    def __str__(self) -> str:
        """Return the proof as people read it."""
        told = f"told after {self.told} s, " if self.told else ""
        return (
            f"proven on {self.version} ({self.commit}): {told}recovered after {self.recovered} s, "
            f"{self.rows} rows differ"
        )


@dataclass
class Result:
    """What happened in one drill of a round."""

    drill: Drill
    host: str = ""
    told: float = 0.0
    recovered: float = 0.0


@cache
def _document() -> dict[str, Any]:
    return dict(yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8")))


@cache
def all_drills() -> dict[str, Drill]:
    """Return every drill by its name."""
    return {name: _drill(name, dict(each)) for name, each in _document()["drills"].items()}


def _drill(name: str, given: dict[str, Any]) -> Drill:
    holds = (
        rules.seconds(str(rule.get("for", "0s")))
        for group in rules.groups()
        for rule in group["rules"]
        if rule.get("alert") == given.setdefault("alert", "")
    )
    given = {"code": "", "heal": {}, "within": max(holds, default=0) + MORE_SECONDS, **given}
    needs, leaves = frozenset(given.pop("needs", ())), frozenset(given.pop("leaves", ()))
    return Drill(name=name, broken=given.pop("break", {}), needs=needs, leaves=leaves, **given)


def without() -> dict[str, str]:
    """Return the runbooks that have no drill, each with the reason."""
    return dict(_document()["without"])


def named(name: str) -> list[list[Drill]]:
    """Return the drills of ``all``, in rounds, or one round: the named ones, separated by commas.

    :raises UsageError: there is no such drill.
    """
    known = all_drills()
    if name == "all":
        return [[each for each in known.values() if each.round == one] for one in sorted(rounds())]
    for each in name.split(","):
        if each not in known:
            raise UsageError(f"{each or 'nothing'} is not a drill. There are: {', '.join(known)}, and all")
    return [[known[each] for each in dict.fromkeys(name.split(","))]]


def rounds() -> set[int]:
    """Return the numbers of the rounds."""
    return {each.round for each in all_drills().values()}


def lacks(drill: Drill, environment: Environment) -> str:
    """Return what an environment lacks for a drill; empty: it can run there."""
    for group in {*drill.broken, *drill.heal} - {"control"}:
        if not environment.in_group(group):
            return f"no host in group {group}"
    if "made" in drill.needs and not environment.ours:
        return "machines that streampulse makes"
    if "apart" in drill.needs:
        (group,) = drill.broken
        host = environment.in_group(group)[0]
        if {service.group for service in services.on_host(host)} - {services.EVERY} != {group}:
            return f"a host that is in the group {group} alone"
    return ""


def proofs(file: Path) -> dict[str, Proof]:
    """Return the proofs of a file, by the runbook's name; none where the file is missing."""
    if not file.is_file():
        return {}
    return {name: Proof(**each) for name, each in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items()}


def own_file(environment: Environment) -> Path:
    """Return the file of an environment's own proofs."""
    return environment.state / "drills.yml"


def record(file: Path, results: Iterable[Result]) -> None:
    """Write the proofs of drills that have passed into a file."""
    found = proofs(file)
    # Proofs of an earlier round change this file alone.
    commit = command.commit(paths.repository(), PROOFS)
    for each in results:
        found[each.drill.name] = Proof(__version__, commit, round(each.told), round(each.recovered), 0)
    listed = {name: asdict(found[name]) for name in sorted(found)}
    file.write_text(_HEAD + yaml.safe_dump(listed, sort_keys=False), encoding="utf-8")


def old(proof: Proof, changelog: str) -> bool:
    """Return whether a proof is of a version that has more than :data:`OLD_VERSIONS` newer ones.

    :param changelog: the text of CHANGELOG.md, whose headings name the versions.
    """
    versions = re.findall(r"^## \[?v?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    listed = list(dict.fromkeys([__version__.split("+")[0], *versions]))
    return proof.version not in listed[: OLD_VERSIONS + 1]
