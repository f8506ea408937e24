"""Existing hosts: cloud VMs, or machines in a rack. Nothing is made, started or removed here."""

from pathlib import Path

from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.hosts import ssh
from streampulse_ops.hosts.reach import NoAnswerError
from streampulse_ops.machines import Report


class Existing:
    """The existing hosts of one environment."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def describe(self) -> str:
        """Return a short description."""
        return "existing hosts"

    def create(self, _host: Host) -> bool:
        """Do nothing: the host exists."""
        return False

    def start(self, host: Host) -> bool:
        """Check the login and sudo.

        :raises OperatorError: one of them fails; the text names the cause and the fix.
        """
        ssh.reached(self.environment, host)
        return False

    def stop(self, _host: Host) -> bool:
        """Leave the host running: the operator owns it."""
        return False

    def destroy(self, _host: Host) -> bool:
        """Keep the host: the operator owns it."""
        return False

    def retire(self) -> list[Host]:
        """Return nothing: the operator owns the hosts."""
        return []

    def running(self, host: Host) -> bool:
        """Return whether the host's SSH server answers.

        :raises OperatorError: it answers and refuses the login or sudo.
        """
        try:
            ssh.reached(self.environment, host)
        except NoAnswerError:
            return False
        return True

    def address(self, host: Host) -> str:
        """Return the inventory's ansible_host, or the host's name."""
        return str(host.variables.get("ansible_host", host.name))

    def console_log(self, _host: Host) -> Path | None:
        """Return None: the cloud or the rack has the console."""
        return None

    def write_inventory(self) -> Path | None:
        """Return None: the operator writes the inventory."""
        return None

    def forget(self) -> None:
        """Do nothing: nothing was made."""


def provider(environment: Environment, _report: Report) -> Existing:
    """Return the provider of an environment."""
    return Existing(environment)
