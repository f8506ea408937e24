"""Jars from Maven Central, by coordinates, each pinned by its hash in artifacts.lock.yml."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops.artifacts.store import ArtifactSet, digest_of, sha256_of
from streampulse_ops.command import CommandError, run
from streampulse_ops.machines import Report, tools

TOOLS = {"mvn": "maven"}
SETS = ("kafka", "jmx")
PURPOSES = {"kafka": "fetching Kafka's jars", "jmx": "fetching the agent that shows Kafka's metrics"}
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
HEADER = (
    "---\n# Made by `inv artifacts --relock` from artifacts.yml: every jar that is pushed to a host, and its hash.\n"
)

Lock = Mapping[str, Any]


def read_lock(root: Path) -> Lock:
    """Read the pins.

    :raises OperatorError: the file is missing or invalid.
    """
    file = root / "artifacts.lock.yml"
    try:
        lock = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {name: {"version": lock[name]["version"], "jars": list(lock[name]["jars"])} for name in SETS}
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise OperatorError(
            f"{file} cannot be used: git checkout artifacts.lock.yml, or inv artifacts --relock"
        ) from None


def jar_set(name: str, lock: Lock) -> ArtifactSet:
    """Return a set of jars with the pins of the lock file."""
    pins = {str(jar["coordinate"]): str(jar["sha256"]) for jar in lock[name]["jars"]}

    def make(folder: Path, report: Report) -> None:
        fetch(pins, folder, report)
        check(pins, folder)

    digest = digest_of(*(f"{coordinate} {pins[coordinate]}" for coordinate in sorted(pins)))
    return ArtifactSet(name, digest, make, PURPOSES[name], {"version": str(lock[name]["version"])})


def file_name(coordinate: str) -> str:
    """Return the name of a jar's file."""
    _, artifact, version = split(coordinate)
    return f"{artifact}-{version}.jar"


def split(coordinate: str) -> tuple[str, str, str]:
    """Return group, artifact and version.

    :raises OperatorError: the text is not of the form group:artifact:version.
    """
    parts = coordinate.split(":")
    if len(parts) != 3 or not all(parts):
        raise OperatorError(f"{coordinate} is not of the form group:artifact:version: correct artifacts.yml")
    return parts[0], parts[1], parts[2]


def check(pins: Mapping[str, str], folder: Path) -> None:
    """Compare every jar with its pin.

    :raises OperatorError: one is missing or has another hash; the text names it.
    """
    for coordinate, wanted in pins.items():
        file = folder / file_name(coordinate)
        if not file.is_file():
            raise OperatorError(f"{coordinate} was not fetched: run inv artifacts again")
        found = sha256_of(file)
        if found != wanted:
            raise OperatorError(
                f"{coordinate} has the wrong hash: artifacts.lock.yml pins {wanted}, fetched was {found}. "
                "Do not use it; remove it from ~/.m2/repository and fetch again, or ask who changed it"
            )


def fetch(coordinates: Iterable[str], folder: Path, report: Report) -> None:
    """Fetch jars one by one, without their dependencies, which the lock names themselves."""
    items = "".join(f"<artifactItem>{_xml(coordinate)}</artifactItem>" for coordinate in coordinates)
    plugin = (
        f"<configuration><outputDirectory>{escape(str(folder))}</outputDirectory>"
        f"<artifactItems>{items}</artifactItems></configuration>"
    )
    _maven(plugin, "", "copy", report)


def resolve(roots: Iterable[str], report: Report) -> list[str]:
    """Return the coordinates of jars and of their run-time dependencies."""
    dependencies = "".join(f"<dependency>{_xml(root)}</dependency>" for root in roots)
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch) / "list"
        plugin = (
            f"<configuration><outputFile>{listing}</outputFile><includeScope>runtime</includeScope></configuration>"
        )
        _maven(plugin, f"<dependencies>{dependencies}</dependencies>", "list", report)
        return parse_listing(listing.read_text(encoding="utf-8"))


def parse_listing(text: str) -> list[str]:
    """Read Maven's list of dependencies, lines such as ``   org.x:y:jar:1.0:runtime -- module y``.

    :raises OperatorError: a dependency is not a plain jar.
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        parts = words[0].split(":") if words else []
        if len(parts) < 4:
            continue
        if len(parts) != 5 or parts[2] != "jar":
            raise OperatorError(f"{words[0]} is not a plain jar: artifacts.yml cannot name what needs it")
        found.append(f"{parts[0]}:{parts[1]}:{parts[3]}")
    return sorted(found)


def relock(root: Path, report: Report) -> int:
    """Write artifacts.lock.yml from artifacts.yml, and return the number of pinned jars.

    The fetched files are trusted: review the difference before committing it.
    """
    wanted = yaml.safe_load((root / "artifacts.yml").read_text(encoding="utf-8"))
    lock: dict[str, Any] = {}
    for name in SETS:
        entry = wanted[name]
        coordinates = resolve(entry["jars"], report) if entry["with_dependencies"] else sorted(entry["jars"])
        with tempfile.TemporaryDirectory() as scratch:
            fetch(coordinates, Path(scratch), report)
            jars = [{"coordinate": c, "sha256": sha256_of(Path(scratch) / file_name(c))} for c in coordinates]
        lock[name] = {"version": str(entry["version"]), "jars": jars}
    text = HEADER + yaml.safe_dump(lock, sort_keys=False, width=200)
    (root / "artifacts.lock.yml").write_text(text, encoding="utf-8")
    return sum(len(entry["jars"]) for entry in lock.values())


def _xml(coordinate: str) -> str:
    group, artifact, version = (escape(part) for part in split(coordinate))
    return f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"


def _maven(plugin: str, dependencies: str, goal: str, report: Report) -> None:
    tools.ensure(TOOLS, "fetching jars by their coordinates", report)
    project = (
        "<project><modelVersion>4.0.0</modelVersion><groupId>streampulse</groupId><artifactId>artifacts</artifactId>"
        f"<version>1</version><packaging>pom</packaging>{dependencies}<build><plugins><plugin>{_xml(PLUGIN)}{plugin}"
        "</plugin></plugins></build></project>"
    )
    with tempfile.TemporaryDirectory() as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(project, encoding="utf-8")
        try:
            run(["mvn", "--batch-mode", "--quiet", "--file", pom, f"{PLUGIN}:{goal}"], cwd=Path(scratch))
        except CommandError as error:
            first = str(error).partition("[ERROR]")[2].partition("[ERROR]")[0].strip()
            raise OperatorError(
                f"Maven could not fetch: {first or error}; check that this machine reaches Maven's central "
                "repository or that ~/.m2/settings.xml names a mirror, then run inv artifacts again"
            ) from None
