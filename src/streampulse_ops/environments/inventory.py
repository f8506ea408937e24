"""What Ansible makes of an environment's inventory: which files it reads, and a host's variables put together."""

import base64
import json
import re
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.command import CommandError, ended, last_words, run, which
from streampulse_ops.environments.environment import Environment, Host

#: The variables that say how to log in to a host.
CONNECTION = (
    "ansible_host", "ansible_port", "ansible_user", "ansible_ssh_private_key_file", "ansible_ssh_args",
    "ansible_ssh_common_args", "ansible_ssh_extra_args",
)  # fmt: skip
# A task's threads ask for all hosts at once.
_asking = threading.Lock()
# The ports, read last: they lay an inventory's own over the defaults.
PORTS = "ansible/ports"


def program(name: str) -> str:
    """Return the path of one of Ansible's programs: this virtual environment's, else the one on PATH."""
    own = Path(sys.executable).parent / name
    return str(own) if own.exists() else which(name) or name


def configuration(root: Path | None = None) -> dict[str, str]:
    """Return the environment variables that point Ansible to our configuration, with plain output.

    :param root: an unpacked release; the checkout without it.
    """
    return {
        "ANSIBLE_CONFIG": str((root or paths.repository()) / "ansible" / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }


def sources(environment: Environment) -> list[str]:
    """Return the options that name an environment's inventories: people's, the provider's where it is, the ports."""
    generated = environment.state / "inventory.json"
    files = [environment.inventory, *([generated] if generated.exists() else []), environment.root / PORTS]
    return [word for file in files for word in ("-i", str(file))]


def variables(environment: Environment, host: Host) -> Mapping[str, Any]:
    """Return a host's variables, as a play begins with them; templates are as they are written.

    :raises OperatorError: Ansible cannot read the inventory.
    """
    try:
        return _variables(tuple(sources(environment)), host.name, environment.release)
    except (CommandError, ValueError) as error:
        raise OperatorError(
            f"{environment.inventory} does not make sense to Ansible: {error}; correct it, then try again"
        ) from None


@cache
def _variables(options: tuple[str, ...], host: str, root: Path | None = None) -> dict[str, Any]:
    folder = (root or paths.repository()) / "ansible"
    command = [program("ansible-inventory"), *options, "--playbook-dir", str(folder / "playbooks"), "--host", host]
    return dict(json.loads(run(command, cwd=folder, environment=configuration(root))))


def connection(environment: Environment, host: Host) -> Mapping[str, Any]:
    """Return the variables of a host's connection, as Ansible evaluates them; more variables may be among them.

    Ansible takes more than a second. It is asked only where lines of groups, files of variables or templates may count.

    :raises OperatorError: Ansible cannot evaluate them.
    """
    found = {**environment.variables, **host.variables}
    files = [file.read_text("utf-8", "replace") for file in environment.folder.glob("*_vars/**/*") if file.is_file()]
    # An encrypted file, or value, begins with the mark of Ansible's vault.
    elsewhere = environment.of_groups or any("ansible_" in text or "$ANSIBLE_VAULT" in text for text in files)
    lines = " ".join(str(found.get(name)) for name in CONNECTION)
    if environment.ours or not (elsewhere or "{{" in lines or "$ANSIBLE_VAULT" in lines):
        return found
    asked = ", ".join(f"'{name}': {name} | default(none)" for name in CONNECTION)
    answer = evaluated(environment, "all", f"{{{asked}}}")[host.name]
    return {name: value for name, value in answer.items() if value is not None}


def evaluated(environment: Environment, hosts: str, expression: str, *options: str) -> Mapping[str, Any]:
    """Return the value of a Jinja expression on each host, without a login.

    :param hosts: Ansible's pattern of hosts.
    :raises OperatorError: Ansible cannot evaluate it.
    """
    try:
        with _asking:
            return _evaluated((*sources(environment), *options), hosts, expression, environment.release)
    except (CommandError, ValueError) as error:
        raise OperatorError(
            f"{environment.inventory} does not make sense to Ansible: {error}; correct it, then try again"
        ) from None


@cache
def _evaluated(options: tuple[str, ...], hosts: str, expression: str, root: Path | None) -> dict[str, Any]:
    folder = (root or paths.repository()) / "ansible"
    question = f"msg={{{{ ({expression}) | to_json | b64encode }}}}"
    command = [program("ansible"), hosts, *options, "--playbook-dir", str(folder / "playbooks")]
    surroundings = {**configuration(root), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal"}
    done = ended([*command, "-m", "ansible.builtin.debug", "-a", question], cwd=folder, environment=surroundings)
    if done.returncode != 0:
        said = re.findall(r'"msg": "(.*)"$', done.stdout, re.MULTILINE) or [last_words(done.stderr, done.returncode)]
        raise CommandError(said[-1].rpartition("'msg': ")[2])
    found = re.findall(r'^(\S+) \| SUCCESS => \{\s+"msg": "([\w+/=]*)"', done.stdout, re.MULTILINE)
    return {host: json.loads(base64.b64decode(value)) for host, value in found}
