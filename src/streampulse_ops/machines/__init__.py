"""Providers of an environment's machines: one interface, three providers, chosen by the inventory."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from streampulse_ops.environments.environment import Environment, Host

Report = Callable[[str], None]

_MODULES = {
    "nspawn": "streampulse_ops.machines.nspawn",
    "vagrant": "streampulse_ops.machines.vagrant",
    "existing": "streampulse_ops.machines.existing",
}


class Provider(Protocol):
    """Makes, starts, stops and removes the machines of one environment. Every method is idempotent."""

    def create(self, host: Host, /) -> bool:
        """Make the machine without starting it; False if it exists."""

    def start(self, host: Host, /) -> bool:
        """Start the machine and return when SSH answers; False if it was running."""

    def stop(self, host: Host, /) -> bool:
        """Shut the machine down and keep its disk; False if it was not running."""

    def destroy(self, host: Host, /) -> bool:
        """Remove the machine and its disk; False if there was none."""

    def retire(self) -> list[Host]:
        """Stop the provider's machines that the inventory no longer names; keep their disks."""

    def running(self, host: Host, /) -> bool:
        """Return whether the machine is up, as far as the provider can tell without a login."""

    def address(self, host: Host, /) -> str:
        """Return the machine's address."""

    def console_log(self, host: Host, /) -> Path | None:
        """Return the file with the machine's console output, if the provider keeps one."""

    def write_inventory(self) -> Path | None:
        """Write the provider's own variables as an Ansible inventory, and return its file."""

    def forget(self) -> None:
        """Remove the environment's shared parts, once all machines are destroyed."""

    def describe(self) -> str:
        """Return a short description of the provider and its system."""


def provider_for(environment: Environment, report: Report) -> Provider:
    """Return the provider that the environment's inventory names.

    :param report: called with a line for each slow step.
    """
    module = importlib.import_module(_MODULES[environment.provider])
    provider: Provider = module.provider(environment, report)
    return provider


def bring_up(environment: Environment, provider: Provider) -> list[Host]:
    """Make and start every machine that is missing or stopped, and return the changed ones."""
    touched = []
    provider.retire()
    for host in environment.hosts:
        made = provider.create(host)
        started = provider.start(host)
        if made or started:
            touched.append(host)
    provider.write_inventory()
    return touched


def bring_down(environment: Environment, provider: Provider) -> list[Host]:
    """Stop every running machine, the last one first, and return the stopped ones."""
    return [host for host in reversed(environment.hosts) if provider.stop(host)] + provider.retire()


def remove(environment: Environment, provider: Provider) -> list[Host]:
    """Remove every machine and everything made for the environment, and return the machines removed."""
    removed = [host for host in reversed(environment.hosts) if provider.destroy(host)]
    provider.forget()
    return removed
