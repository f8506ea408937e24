"""Run Ansible on this machine: evaluate expressions, run playbooks and the repository's modules."""

import base64
import importlib.machinery
import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.testing import patch_module_args

from streampulse_ops import paths
from streampulse_ops.command import program_environment
from streampulse_ops.environments import inventory

ANSIBLE = paths.repository() / "ansible"


def playbook(folder: Path, *arguments: str) -> str:
    """Run ansible-playbook from a folder and return its output; a failure fails the test."""
    done = subprocess.run(
        [inventory.program("ansible-playbook"), *arguments],
        cwd=folder,
        env=program_environment(inventory.configuration()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shown(
    folder: Path,
    sources: Sequence[str],
    expression: str,
    *,
    play: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a Jinja expression's value on each host; all of them are this machine.

    :param folder: a scratch folder for the playbook.
    :param sources: options that name the inventories.
    :param play: keys of the play besides the expression; ``tasks`` run before it.
    :param variables: extra variables.
    """
    keys = dict(play or {})
    debug = {"ansible.builtin.debug": {"msg": f"<{{{{ ({expression}) | to_json | b64encode }}}}>"}}
    tasks = [*keys.pop("tasks", []), debug]
    (folder / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, **keys, "tasks": tasks}]))
    if not (folder / "group_vars").exists():
        (folder / "group_vars").symlink_to(ANSIBLE / "playbooks/group_vars")
    extra = json.dumps({"ansible_connection": "local", **(variables or {})})
    said = playbook(ANSIBLE, *sources, "-e", extra, str(folder / "play.yml"))
    found = re.findall(r'ok: \[([\w-]+)\] => \{\s+"msg": "<([\w+/=]*)>"', said)
    return {host: json.loads(base64.b64decode(value)) for host, value in found}


def load(file: Path) -> Any:
    """Import a file of the roles or plugins and return the module."""
    loader = importlib.machinery.SourceFileLoader(file.stem.replace("-", "_"), str(file))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    loaded = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(loaded)
    finally:
        sys.dont_write_bytecode = before
    return loaded


def module(name: str, arguments: Mapping[str, Any], *, check_mode: bool = False) -> tuple[bool, str]:
    """Run a module of ansible/playbooks/library in this process; return its success and its result."""
    loaded = load(ANSIBLE / "playbooks/library" / f"{name}.py")
    output = io.StringIO()
    with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), redirect_stdout(output):
        try:
            loaded.main()
        except SystemExit as error:
            return error.code == 0, output.getvalue()
    raise AssertionError(f"{name} ended without a result")
