"""The software that is pushed to the hosts: fetched or built once on this machine, pinned by hash.

Each set is a folder ``<cache>/artifacts/<set>/<digest>/`` with its files and their ``SHA256SUMS``. The digest is that
of the set's pins, so a lookup needs no network and takes milliseconds. Adding a set removes old sets that no
environment of this machine uses.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.artifacts import jars, release, spark, wheels
from streampulse_ops.artifacts.store import ArtifactSet, Store
from streampulse_ops.cli.ownership import give_to_invoker
from streampulse_ops.environments.environment import Environment
from streampulse_ops.machines import Report

PYTHONS = {"debian12": "cp311", "debian13": "cp313", "ubuntu2404": "cp312"}


@dataclass(frozen=True)
class Prepared:
    """The sets of an environment's hosts, and the sets fetched and removed for them."""

    facts: dict[str, Any]
    ready: int
    fetched: int
    fetched_bytes: int
    removed: Sequence[str] = ()

    def summary(self) -> str:
        """Return the line that the tasks print."""
        new = f" ({self.fetched} fetched, {self.fetched_bytes / 1e6:.0f} MB)" if self.fetched else ""
        old = f", no longer used and removed: {', '.join(self.removed)}" if self.removed else ""
        return f"{self.ready} ready{new}{old}"


# Supported architectures, by their name in wheels, with the kernel's name of each.
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def architecture_of(environment: Environment) -> str:
    """Return the hosts' architecture: the inventory's, or this machine's if hosts run on it, or x86_64.

    :raises OperatorError: there are no wheels for the inventory's architecture.
    """
    own = platform.machine().lower() if environment.ours else "x86_64"
    given = str(environment.variables.get("host_architecture", own))
    if given not in ARCHITECTURES:
        raise OperatorError(
            f"host_architecture of {environment.name} is {given}: set x86_64 or aarch64 in its hosts.yml"
        )
    return ARCHITECTURES[given]


def pythons_of(environment: Environment) -> Sequence[str]:
    """Return the tags of the hosts' Pythons, such as ``cp313``, as far as the control machine knows them.

    :raises OperatorError: the inventory names an unsupported Python.
    """
    if environment.provider == "nspawn":
        return [PYTHONS[str(environment.variables.get("machine_os") or "debian13")]]
    known = PYTHONS.values()
    given = environment.variables.get("host_pythons", sorted(known))
    if not given or not isinstance(given, list | tuple) or any(python not in known for python in given):
        raise OperatorError(
            f"host_pythons of {environment.name} is {given}: list some of {', '.join(known)} in its hosts.yml"
        )
    return given


def prepare(pythons: Sequence[str], machine: str, report: Report, root: Path | None = None) -> Prepared:
    """Fetch or build every missing set.

    :param pythons: tags of the hosts' Pythons, such as ``cp313``.
    :param machine: the hosts' architecture, such as ``x86_64``.
    :param root: an unpacked release, whose pins and sources count; the checkout without it.
    :raises OperatorError: a set cannot be fetched, or its hash is not the pinned one; the text names it.
    """
    store, root = Store(paths.cache_home() / "artifacts"), root or paths.repository()
    lock = jars.read_lock(root)
    # Three at a time: fetching waits for the network while Spark's wheel keeps a core busy.
    packages = [wheels.wheel_set(root, python, machine) for python in sorted(set(pythons))]
    threads = ([jars.jar_set(name, lock) for name in jars.SETS], [spark.spark_set(root)], packages)
    own = release.release_set(root)
    wanted: list[ArtifactSet] = [*(item for items in threads for item in items), own]
    with ThreadPoolExecutor(len(threads)) as pool:
        done = list(pool.map(lambda items: [item for item in items if store.ensure(item, report)], threads))
    fetched = [item for items in done for item in items]
    if store.ensure(own, report):
        fetched.append(own)
    size = sum(store.size(item) for item in fetched)
    facts: dict[str, Any] = {item.name: item.facts(store.folder(item)) for item in wanted}
    facts["wheels"] = {
        name.removeprefix("wheels-"): facts.pop(name) for name in list(facts) if name.startswith("wheels-")
    }
    removed = store.prune({*_in_use(), *(store.folder(item) for item in wanted)}) if fetched else []
    return Prepared({"streampulse_artifacts": facts}, len(wanted), len(fetched), size, removed)


def _in_use() -> Iterator[Path]:
    """Yield the sets that the environments of this machine were last brought up with.

    :raises OperatorError: an environment's file cannot be read.
    """
    for home in (paths.MACHINES_STATE, paths.state_home()):
        for file in home.glob("*/artifacts.json"):
            try:
                yield from list(_folders(json.loads(file.read_text(encoding="utf-8"))))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise OperatorError(
                    f"{file} is not a list of artifacts: rm {file}; inv up --env {file.parent.name} writes it"
                ) from None


def _folders(facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder of each set in Ansible's extra variables."""
    sets = dict(facts["streampulse_artifacts"])
    for entry in (*sets.pop("wheels", {}).values(), *sets.values()):
        yield Path(entry["path"])


def write_facts(prepared: Prepared, file: Path) -> None:
    """Write the extra variables for Ansible: the whole file or, if the process is killed, nothing."""
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(prepared.facts, indent=2) + "\n", encoding="utf-8")
    give_to_invoker(temporary)
    temporary.replace(file)


def verify(prepared: Prepared) -> int:
    """Verify the hash of every file of every set and return the number of files.

    :raises OperatorError: a file has changed; the text names it.
    """
    return sum(Store.rehash(folder) for folder in _folders(prepared.facts))
