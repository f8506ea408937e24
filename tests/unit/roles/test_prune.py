"""streampulse_prune: the version in use and the previous one stay; every other one is removed."""

import json
import os
from pathlib import Path
from typing import Any

from ansible_runs import module


def prune(root: Path, *, check_mode: bool = False) -> Any:
    """Run the module on the folders below a root."""
    arguments = {
        "links": [str(root / "opt" / name / "current") for name in ("own", "kafka", "kafka/agent", "absent")],
        "sets": {"release": "r4", "kafka": "k1", "none": "n"},
        "sets_dir": str(root / "sets"),
        "shared_dir": str(root / "opt/own/libraries"),
        "shared_by": f"{root}/opt/own/releases/*/libraries.pth",
    }
    done, said = module("streampulse_prune", arguments, check_mode=check_mode)
    assert done, said
    return json.loads(said)


def versions(folder: Path, *names: str) -> None:
    """Make versions, the oldest first."""
    for age, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").touch()
        os.utime(folder / name, (1_000_000 + age, 1_000_000 + age))


def test_the_version_in_use_and_the_previous_one_stay(tmp_path: Path) -> None:
    own, kafka = tmp_path / "opt/own", tmp_path / "opt/kafka"
    versions(own / "releases", "r1", "r2", "r3", "r4")
    (own / "current").symlink_to("releases/r4")
    versions(own / "libraries", "old", "both", "new")
    for release, library in (("r1", "old"), ("r2", "old"), ("r3", "both"), ("r4", "both")):
        (own / "releases" / release / "libraries.pth").write_text(f"{own}/libraries/{library}\n")
        os.utime(own / "releases" / release, (1_000_000 + int(release[1]),) * 2)
    versions(kafka, "4.1", "4.2")
    (kafka / "current").symlink_to("4.1")  # rolled back: the newer one is the previous one
    versions(kafka / "agent", "c1", "c2", "c3")
    (kafka / "agent/current").symlink_to("c1")
    versions(tmp_path / "sets/release", "r1", "r2", "r3", "r4")
    versions(tmp_path / "sets/kafka", "k1")

    would = prune(tmp_path, check_mode=True)
    expected = [
        own / "releases/r2", own / "releases/r1", kafka / "agent/c2",
        tmp_path / "sets/release/r2", tmp_path / "sets/release/r1",
    ]  # fmt: skip
    assert would["changed"] is True
    assert sorted(would["removed"]) == sorted(map(str, [*expected, own / "libraries/old", own / "libraries/new"]))
    assert all(folder.is_dir() for folder in expected)
    assert sorted(prune(tmp_path)["removed"]) == sorted(would["removed"])
    assert not any(folder.exists() for folder in expected)
    assert {path.name for path in (own / "releases").iterdir()} == {"r3", "r4"}
    assert {path.name for path in kafka.iterdir()} == {"4.1", "4.2", "current", "agent"}
    assert prune(tmp_path)["changed"] is False
