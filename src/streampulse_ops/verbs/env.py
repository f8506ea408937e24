"""``inv env``: a new environment, and fresh secrets for its vault."""

from __future__ import annotations

from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.environments import environment

TEMPLATE = "staging"


def new(name: str) -> Path:
    """Write the inventory of a new environment of existing hosts, and return its file.

    :raises OperatorError: the name is taken or has the wrong form.
    """
    environment.check_name(name)
    if name in environment.names():
        raise OperatorError(f"{name} is an environment already: edit {paths.inventories() / name / 'hosts.yml'}")
    pattern = paths.repository() / "ansible" / "inventories" / TEMPLATE / "hosts.yml"
    file = paths.inventories() / name / "hosts.yml"
    file.parent.mkdir(parents=True)
    file.write_text(pattern.read_text(encoding="utf-8"), encoding="utf-8")
    return file
