"""Existing hosts: cloud VMs, or machines in a rack. Nothing is made, started or removed here."""

from streampulse_ops.environments.environment import Host
from streampulse_ops.hosts import ssh
from streampulse_ops.hosts.reach import NoAnswerError
from streampulse_ops.machines import Provider


class Existing(Provider):
    """The existing hosts of one environment."""

    def describe(self) -> str:
        """Return a short description."""
        return "existing hosts"

    def start(self, host: Host) -> bool:
        """Check the login and sudo.

        :raises OperatorError: one of them fails; the text names the cause and the fix.
        """
        ssh.reached(self.environment, host)
        return False

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
        return ssh.login(self.environment, host).address
