"""What Ansible makes of an environment's inventory: which files it reads, and a host's variables put together."""

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.command import CommandError, run, which
from streampulse_ops.environments.environment import Environment, Host

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
