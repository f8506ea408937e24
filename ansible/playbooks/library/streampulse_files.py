#!/usr/bin/python3
"""Ansible module: bring several directories, files and links into their state in one call."""

import grp
import hashlib
import json
import os
import pwd
import shlex
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: streampulse_files
short_description: Directories, files and links in one call
description:
  - A task costs a round trip, so a role's whole configuration goes through one. Each file is validated before it
    lands, then moved into place in one step.
  - Supports check mode and diff. In check mode nothing is validated, since on a fresh host the programs that do it are
    not there yet, and owners need not exist yet.
options:
  directories:
    description: Directories that must exist, parents first.
    type: list
    elements: dict
    default: []
    suboptions: &entry
      path: {description: Where., type: path, required: true}
      owner: {description: User that owns it., type: str, default: root}
      group: {description: Group that owns it., type: str, default: root}
      mode: {description: Permissions in octal., type: str}
  files:
    description: Files with their whole content.
    type: list
    elements: dict
    default: []
    suboptions:
      <<: *entry
      content: {description: The whole content., type: str, required: true}
      validate: {description: Command that must succeed on the new file; C(%s) is its path., type: str}
  secret_files:
    description: As files, but neither the content is ever shown nor what its validator says.
    type: list
    elements: dict
    default: []
  links:
    description: Symbolic links.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Where., type: path, required: true}
      target: {description: What it points to., type: str, required: true}
  absent:
    description: Files that must not exist.
    type: list
    elements: path
    default: []
"""

RETURN = r"""
changed_paths: {description: What was changed, type: list, elements: str, returned: always}
"""


class Module(AnsibleModule):
    """An Ansible module that does not log its arguments to the host's journal.

    Ansible masks a secret by its text. It logs a list as its representation, in which a multi-line text differs from
    the secret.
    """

    def _log_invocation(self) -> None:
        self.log("Invoked")


class Changes:
    """The changes of one run of the module, made or predicted."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.paths: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def add(self, path: str, before: str, after: str) -> None:
        """Record a change of a path, with texts for the diff."""
        if path not in self.paths:
            self.paths.append(path)
        self.diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})

    def attributes(self, entry: dict[str, Any], default_mode: int) -> None:
        """Set owner, group and mode of an existing path."""
        path = Path(entry["path"])
        mode = int(entry["mode"], 8) if entry["mode"] else default_mode
        state = path.lstat()
        try:
            owner, group = pwd.getpwnam(entry["owner"]).pw_uid, grp.getgrnam(entry["group"]).gr_gid
        except KeyError as error:
            if not self.module.check_mode:
                self.module.fail_json(msg=f"{path} cannot be owned by {entry['owner']}:{entry['group']}: {error}")
            self.add(str(path), "", f"owner {entry['owner']}:{entry['group']}\n")
            return
        before = f"{state.st_uid}:{state.st_gid} {stat.S_IMODE(state.st_mode):04o}\n"
        after = f"{owner}:{group} {mode:04o}\n"
        if before == after:
            return
        self.add(str(path), before, after)
        if not self.module.check_mode:
            os.chown(path, owner, group)
            path.chmod(mode)


def exists(path: Path) -> bool:
    """Whether the path exists, dangling links included."""
    return path.is_symlink() or path.exists()


def ensure_directory(changes: Changes, entry: dict[str, Any]) -> None:
    """Make a directory with its attributes."""
    path = Path(entry["path"])
    if exists(path) and not path.is_dir():
        changes.module.fail_json(msg=f"{path} exists and is not a directory: move it away, then run again")
    if not path.is_dir():
        changes.add(str(path), "absent\n", "directory\n")
        if changes.module.check_mode:
            return
        path.mkdir(parents=True)
    changes.attributes(entry, 0o755)


def validated_copy(changes: Changes, entry: dict[str, Any], *, secret: bool) -> Path:
    """Write the new content beside its final path, validate it, and return the temporary path."""
    path = Path(entry["path"])
    descriptor, name = tempfile.mkstemp(prefix=".streampulse-", dir=path.parent)
    temporary = Path(name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(entry["content"])
        stream.flush()
        os.fsync(stream.fileno())
    if entry.get("validate"):
        # A validator such as `systemd-analyze verify` depends on the file's name, so it gets a copy with that name.
        with tempfile.TemporaryDirectory(prefix="streampulse-validate-", dir="/run") as scratch:
            # The validator may run as the service's user, except if it reads a secret.
            Path(scratch).chmod(0o700 if secret else 0o755)
            candidate = Path(scratch) / path.name
            shutil.copyfile(temporary, candidate)
            candidate.chmod(0o600 if secret else 0o644)
            command = [word.replace("%s", str(candidate)) for word in shlex.split(entry["validate"])]
            code, out, err = changes.module.run_command(command)
        if code != 0:
            temporary.unlink()
            why = f"{command[0]} refuses it, in words that may hold secrets" if secret else (err or out).strip()
            changes.module.fail_json(msg=f"{path} was not changed: its new content is not valid: {why}")
    return temporary


def ensure_file(changes: Changes, entry: dict[str, Any], *, secret: bool) -> None:
    """Give a file its content and attributes."""
    path = Path(entry["path"])
    before = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else None
    if before != entry["content"]:
        if secret:
            changes.add(str(path), "secret\n" if before is not None else "", "another secret\n")
        else:
            changes.add(str(path), before or "", entry["content"])
        if changes.module.check_mode:
            return
        temporary = validated_copy(changes, entry, secret=secret)
        # Set the attributes first: a secret must not be readable even for a moment.
        Changes(changes.module).attributes({**entry, "path": temporary}, 0o600 if secret else 0o644)
        temporary.replace(path)
    changes.attributes(entry, 0o600 if secret else 0o644)


def ensure_link(changes: Changes, entry: dict[str, Any]) -> None:
    """Point a symbolic link at its target atomically."""
    path, target = Path(entry["path"]), entry["target"]
    before = str(path.readlink()) if path.is_symlink() else None
    if before == target:
        return
    if before is None and exists(path):
        changes.module.fail_json(msg=f"{path} exists and is not a link: move it away, then run again")
    changes.add(str(path), f"{before or 'absent'}\n", f"{target}\n")
    if not changes.module.check_mode:
        temporary = path.with_name(f"{path.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(path)


def seen(path: Path) -> str:
    """Describe a file or a link, as `streampulse check` does."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    state = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{state.st_uid}:{state.st_gid} {stat.S_IMODE(state.st_mode):04o} {digest}"


def record(file: Path, written: list[str], absent: list[str]) -> None:
    """Keep what was written in the record; it is no part of the state that a role asks for."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    after = {**before, **{path: seen(Path(path)) for path in written}}
    for path in absent:
        after.pop(path, None)
    if after != before:
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name(f"{file.name}.new")
        # The digest of a secret is for root only.
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(after, indent=1, sort_keys=True), encoding="utf-8")
        temporary.replace(file)


def main() -> None:
    """Run the module."""
    entry: dict[str, Any] = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str"},
    }
    content: dict[str, Any] = {"type": "str", "required": True}
    validate: dict[str, Any] = {"type": "str"}
    listing: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}
    module = Module(
        argument_spec={
            "directories": {**listing, "options": entry},
            "files": {**listing, "options": {**entry, "content": content, "validate": validate}},
            "secret_files": {
                **listing,
                "options": {**entry, "content": {**content, "no_log": True}, "validate": validate},
            },
            "links": {
                **listing,
                "options": {"path": {"type": "path", "required": True}, "target": {"type": "str", "required": True}},
            },
            "absent": {"type": "list", "elements": "path", "default": []},
            "record": {"type": "path", "default": "/var/lib/streampulse/written.json"},
        },
        supports_check_mode=True,
    )
    changes = Changes(module)
    try:
        for item in module.params["directories"]:
            ensure_directory(changes, item)
        for item in module.params["files"]:
            ensure_file(changes, item, secret=False)
        for item in module.params["secret_files"]:
            ensure_file(changes, item, secret=True)
        for item in module.params["links"]:
            ensure_link(changes, item)
        for path in map(Path, module.params["absent"]):
            if exists(path):
                changes.add(str(path), "present\n", "absent\n")
                if not module.check_mode:
                    path.unlink()
        if not module.check_mode:
            written = [item["path"] for key in ("files", "secret_files", "links") for item in module.params[key]]
            record(Path(module.params["record"]), written, module.params["absent"])
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'a file'}: {error.strerror}", changed_paths=changes.paths)
    module.exit_json(changed=bool(changes.paths), changed_paths=changes.paths, diff=changes.diffs)


if __name__ == "__main__":
    main()
