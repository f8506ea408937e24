"""A release's bundle: one archive with everything that a deploy applies, except the vault.

It holds the sources of the wheel, ``sql/``, all pins, playbooks, roles, units, rules, dashboards and the environment's
inventory. Equal content gives equal bytes. A deploy unpacks the bundle and runs its playbooks from there, so an older
release is applied by its own roles.
"""

import dataclasses
import gzip
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from streampulse.core.errors import OperatorError, UsageError
from streampulse.job import shards
from streampulse_ops import paths
from streampulse_ops.artifacts import release
from streampulse_ops.artifacts.store import digest_of
from streampulse_ops.command import CommandError, run
from streampulse_ops.environments import environment as environments
from streampulse_ops.environments.environment import Environment

#: Version of what the playbooks expect of streampulse_ops: their names, variables and events.
INTERFACE = 2
#: Bundles that are kept on the control machine and on each host.
KEPT = 5
MANIFEST = "manifest.json"
NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{10}")
#: Files of the checkout, beside those that the wheel is made of.
SOURCES = (
    "ansible/ansible.cfg", "ansible/services.yml", "ansible/playbooks/**/*", "ansible/plugins/**/*", "ansible/ports/*",
    "ansible/roles/**/*", "systemd/*", "prometheus/**/*", "grafana/**/*", "docs/runbooks/*", "requirements/*.lock",
    "artifacts.lock.yml", "pyproject.toml",
)  # fmt: skip
IGNORED = ("__pycache__", "molecule", "tests")
ENCRYPTED = b"$ANSIBLE_VAULT"
#: A migration with this line ends the service of releases whose newest migration has a lower number.
ENDS = re.compile(r"^-- Ends releases before (\d{4})\.$", re.MULTILINE)


@dataclass(frozen=True)
class Bundle:
    """One release of one environment: its archive on this machine, and its manifest."""

    file: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The release's name: git's version and the digest of the content."""
        return str(self.manifest["name"])

    @property
    def digest(self) -> str:
        """The digest of the content."""
        return name_digest(self.name)

    def environment(self, current: Environment) -> Environment:
        """Unpack the bundle and return the environment as the release has it.

        Encrypted files stay with the environment: the unpacked inventory has links to them.

        :param current: the environment as this checkout has it.
        """
        tree = self.file.with_suffix("").with_suffix("")
        if not (tree / MANIFEST).exists():
            partial = tree.with_name(f".{tree.name}.partial")
            for leftover in (partial, tree):
                shutil.rmtree(leftover, ignore_errors=True)
            with tarfile.open(self.file) as archive:
                archive.extractall(partial, filter="data")
            partial.rename(tree)
        folder = tree / "inventory"
        for file in _settings(current.folder):
            link = folder / file.relative_to(current.folder)
            if _encrypted(file):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(file.resolve())
        loaded = environments.read(current.name, folder)
        return dataclasses.replace(loaded, release=tree)


def name_digest(name: str) -> str:
    """Return the digest of the content that a release's name ends with."""
    return name.rpartition("-")[2]


def make(environment: Environment, drivers: int) -> Bundle:
    """Make the bundle of this checkout and of the environment's inventory, unless it exists.

    :param drivers: number of the job's drivers, which decides about the format of its state.
    """
    root = paths.repository()
    files = {str(file): root / file for file in _files(root)}
    for file in _settings(environment.folder):
        if not _encrypted(file):
            files[f"inventory/{file.relative_to(environment.folder)}"] = file
    content = {name: file.read_bytes() for name, file in sorted(files.items())}
    # The version names the release and is not part of its content: a commit that changes no file is the same release.
    digest = digest_of(*(part for name, data in content.items() for part in (name, data)))[:10]
    version = _version(root)
    manifest = {"name": f"{version}-{digest}", "interface": INTERFACE, **_formats(root, drivers)}
    content[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    file = folder(environment) / f"{manifest['name']}.tar.gz"
    if not file.exists():
        keep(environment, str(manifest["name"]), _archive(content))
    return Bundle(file, manifest)


def folder(environment: Environment) -> Path:
    """Return the folder of an environment's bundles on this machine."""
    return paths.cache_home() / "releases" / environment.name


def keep(environment: Environment, name: str, data: bytes) -> Path:
    """Write a bundle into the folder, remove the oldest beyond the last five, and return its file."""
    home = folder(environment)
    home.mkdir(parents=True, exist_ok=True)
    file = home / f"{name}.tar.gz"
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(file)
    for old in sorted(home.glob("*.tar.gz"), key=lambda each: each.stat().st_mtime, reverse=True)[KEPT:]:
        old.unlink()
        shutil.rmtree(old.with_suffix("").with_suffix(""), ignore_errors=True)
    return file


def stored(environment: Environment, name: str) -> Bundle | None:
    """Return a bundle that this machine has, else None."""
    file = folder(environment) / f"{name}.tar.gz"
    return opened(file) if file.is_file() else None


def opened(file: Path) -> Bundle:
    """Read a bundle's manifest.

    :raises OperatorError: the file is not a bundle.
    """
    try:
        with tarfile.open(file) as archive:
            member = archive.extractfile(MANIFEST)
            manifest: dict[str, Any] = json.load(member) if member else {}
        return Bundle(file, {"name": str(manifest["name"]), **manifest})
    except (tarfile.TarError, KeyError, ValueError, TypeError, EOFError, gzip.BadGzipFile):
        raise OperatorError(f"{file} is not a release's bundle: rm {file}, then try again") from None


def check_name(name: str) -> None:
    """Check the form of a release's name.

    :raises UsageError: no release has such a name.
    """
    if not NAME_FORM.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a release: inv releases lists them")


def why_not(target: Mapping[str, Any], running: Mapping[str, Any] | None, oldest_schema: int, kafka: str) -> str:
    """Return why a release cannot follow the one that runs without a loss; empty if it can.

    :param target: manifest of the release to deploy.
    :param running: manifest of the release that runs; None where nothing is known.
    :param oldest_schema: what the migrations that the database has ask for.
    :param kafka: Kafka's version that formatted the cluster; empty where nothing is known.
    """
    if target["interface"] != INTERFACE:
        version = str(target["name"]).rpartition("-")[0]
        return (
            f"it needs tasks with interface {target['interface']} and this checkout has {INTERFACE}: "
            f"git checkout {version}, and deploy from there"
        )
    if target["schema"] < oldest_schema:
        return (
            f"it serves schemas to {target['schema']:04}, and migrations since then serve releases from "
            f"{oldest_schema:04} on; migrations are never undone"
        )
    if running and running["state_written"] not in target["state_read"]:
        read = " and ".join(map(str, target["state_read"]))
        return f"the job's state has format {running['state_written']}, and it reads {read}"
    if kafka and _numbers(target["kafka_metadata"]) < _numbers(kafka):
        return f"Kafka's metadata has version {kafka}, and its Kafka {target['kafka_metadata']} cannot read that"
    return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _files(root: Path) -> Iterator[Path]:
    """Yield the files of the checkout that belong to a bundle, relative to it."""
    found = set(release.inputs(root))
    for pattern in SOURCES:
        found |= {file.relative_to(root) for file in root.glob(pattern) if file.is_file()}
    yield from (file for file in found if not set(IGNORED) & set(file.parts))


def _settings(inventory: Path) -> list[Path]:
    """Return the files of an environment's folder that Ansible reads."""
    return [file for file in sorted(inventory.rglob("*")) if file.is_file() and _read(file.relative_to(inventory))]


def _read(file: Path) -> bool:
    """Tell whether Ansible reads a file of an inventory."""
    of_variables = {"group_vars", "host_vars"} & set(file.parts)
    suffixes = {".yml", ".yaml", *({"", ".json"} if of_variables else ())}
    return file.suffix in suffixes and not file.name.startswith(".")


def _encrypted(file: Path) -> bool:
    with file.open("rb") as handle:
        return file.name == "vault.yml" or handle.read(len(ENCRYPTED)) == ENCRYPTED


def _version(root: Path) -> str:
    """Return git's version of the checkout; without git, that of the package."""
    try:
        return run(["git", "describe", "--always", "--tags", "--dirty"], cwd=root).strip()
    except CommandError:
        return release.version(root)


def _formats(root: Path, drivers: int) -> dict[str, Any]:
    """Return what decides whether another release can follow this one, or this one another."""
    migrations = sorted((root / "sql").glob("*.sql"))
    ended = [int(number) for file in migrations for number in ENDS.findall(file.read_text(encoding="utf-8"))]
    lock = yaml.safe_load((root / "artifacts.lock.yml").read_text(encoding="utf-8"))
    return {
        "schema": int(migrations[-1].name[:4]),
        "oldest_schema": max(ended, default=0),
        "state_read": list(range(shards.OLDEST_FORMAT, shards.SHARD_FORMAT + 1)),
        "state_written": shards.Shard(0, drivers).format,
        "kafka_metadata": ".".join(str(lock["kafka"]["version"]).split(".")[:2]),
    }


def _archive(content: Mapping[str, bytes]) -> bytes:
    """Return a compressed archive that depends on names and content only."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=6) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
