"""Hosts that exist already: cloud VMs, or machines in a rack. Nothing is made, started or removed here."""

from __future__ import annotations

import socket
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.machines import Report

CONNECT_SECONDS = 5.0


class Existing:
    """The hosts of one environment, as its inventory names them."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def describe(self) -> str:
        """Return what the machines are."""
        return "existing hosts"

    def create(self, _host: Host) -> bool:
        """Do nothing: the host exists."""
        return False

    def start(self, host: Host) -> bool:
        """Check that SSH answers.

        :raises OperatorError: it does not.
        """
        if not self.running(host):
            raise OperatorError(
                f"{host.name} does not answer on SSH at {self.address(host)}: start the host, or mend ansible_host in "
                f"{self.environment.inventory}"
            )
        return False

    def stop(self, _host: Host) -> bool:
        """Leave the host running: it is not ours to halt."""
        return False

    def destroy(self, _host: Host) -> bool:
        """Leave the host: it is not ours to remove."""
        return False

    def retire(self) -> list[Host]:
        """None: hosts are not ours to halt."""
        return []

    def running(self, host: Host) -> bool:
        """Return whether something answers at the host's SSH port."""
        port = int(host.variables.get("ansible_port", self.environment.variables.get("ansible_port", 22)))
        try:
            with socket.create_connection((self.address(host), port), timeout=CONNECT_SECONDS):
                return True
        except OSError:
            return False

    def address(self, host: Host) -> str:
        """Return the inventory's ansible_host, else the host's name."""
        return str(host.variables.get("ansible_host", host.name))

    def console_log(self, _host: Host) -> Path | None:
        """Return None: the console is the cloud's or the rack's."""
        return None

    def write_inventory(self) -> Path | None:
        """Return None: people write it."""
        return None

    def forget(self) -> None:
        """Nothing was made."""


def provider(environment: Environment, _report: Report) -> Existing:
    """Return the provider of an environment."""
    return Existing(environment)
