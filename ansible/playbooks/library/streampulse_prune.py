#!/usr/bin/python3
"""Ansible module: remove old versions, except the one in use and the previous one."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: streampulse_prune
short_description: Remove old versions, except the one in use and the one before
description:
  - Of each link that names the version in use, the other versions beside it are removed, except the newest of them. A
    version is a folder; one that has a link C(current) of its own is a folder of versions and is left alone.
  - Folders that versions share are removed when no version that is left names them.
  - Supports check mode.
options:
  links:
    description: Links to the versions that are in use; one that is not there is passed over.
    type: list
    elements: path
    default: []
  sets:
    description: Folders of sets, each with the name of the one that is in use (set to name).
    type: dict
    default: {}
  sets_dir:
    description: Where the folders of sets are.
    type: path
  shared_dir:
    description: Folder of what versions share.
    type: path
  shared_by:
    description: Pattern of the files that hold the path of a shared folder, one for each version.
    type: str
"""

RETURN = r"""
removed: {description: What was removed, type: list, elements: str, returned: always}
"""


def outdated(folder: Path, current: str) -> list[Path]:
    """Return the versions in a folder that are neither in use nor the newest of the others."""
    if not (folder / current).is_dir():
        return []
    others = [
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.is_symlink() and entry.name != current and not (entry / "current").is_symlink()
    ]
    return sorted(others, key=lambda entry: entry.stat().st_mtime, reverse=True)[1:]


def unshared(folder: Path, pattern: str, gone: Iterable[Path]) -> list[Path]:
    """Return the shared folders that no version refers to after ``gone`` are removed."""
    without = set(gone)
    names = [file for file in Path("/").glob(pattern.lstrip("/")) if not without & set(file.parents)]
    needed = {file.read_text(encoding="utf-8").strip() for file in names}
    # Without any version the pattern is wrong: remove nothing.
    return [entry for entry in folder.iterdir() if str(entry) not in needed] if needed and folder.is_dir() else []


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "links": {"type": "list", "elements": "path", "default": []},
            "sets": {"type": "dict", "default": {}},
            "sets_dir": {"type": "path"},
            "shared_dir": {"type": "path"},
            "shared_by": {"type": "str"},
        },
        required_together=[("shared_dir", "shared_by")],
        supports_check_mode=True,
    )
    given = module.params
    try:
        old: list[Path] = []
        for link in map(Path, given["links"]):
            if link.is_symlink():
                target = link.resolve()
                old += outdated(target.parent, target.name)
        for name, current in given["sets"].items():
            old += outdated(Path(given["sets_dir"]) / name, current)
        if given["shared_dir"]:
            old += unshared(Path(given["shared_dir"]), given["shared_by"], old)
        for folder in old:
            if not module.check_mode:
                shutil.rmtree(folder)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'a folder'}: {error.strerror}")
    module.exit_json(changed=bool(old), removed=[str(folder) for folder in old])


if __name__ == "__main__":
    main()
