"""Who provides an environment's machines: one small interface, three providers, chosen by the inventory."""

from __future__ import annotations

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
    """Makes, starts, stops and removes the machines of one environment. Every method may be called again."""

    def create(self, host: Host, /) -> bool:
        """Make the machine, not yet started; False when it was there already."""

    def start(self, host: Host, /) -> bool:
        """Start the machine and return when SSH answers; False when it was running already."""

    def stop(self, host: Host, /) -> bool:
        """Shut the machine down, its disk kept; False when it was not running."""

    def destroy(self, host: Host, /) -> bool:
        """Remove the machine and its disk; False when there was none."""

    def retire(self) -> list[Host]:
        """Stop machines that were made here and that the inventory no longer names; their disks are kept."""

    def running(self, host: Host, /) -> bool:
        """Return whether the machine is up, as far as this side can tell without logging in."""

    def address(self, host: Host, /) -> str:
        """Return the address at which the machine is reached."""

    def console_log(self, host: Host, /) -> Path | None:
        """Return the file that has the machine's console output, where the provider keeps one."""

    def write_inventory(self) -> Path | None:
        """Write the variables that only this provider knows as an Ansible inventory, and return its file."""

    def forget(self) -> None:
        """Remove what belongs to no single machine, once all are destroyed."""

    def describe(self) -> str:
        """Return the provider and the system of its machines in a few words."""


def provider_for(environment: Environment, report: Report) -> Provider:
    """Return the provider that the environment's inventory names.

    :param report: called with a line for each step that takes a while.
    """
    module = importlib.import_module(_MODULES[environment.provider])
    provider: Provider = module.provider(environment, report)
    return provider


def bring_up(environment: Environment, provider: Provider) -> list[Host]:
    """Make and start every machine that is not there or not running, and return those that were touched."""
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
    """Stop every running machine, the last one first, and return those that were stopped."""
    return [host for host in reversed(environment.hosts) if provider.stop(host)] + provider.retire()


def remove(environment: Environment, provider: Provider) -> list[Host]:
    """Stop and remove every machine and what was made for the environment, and return the machines removed."""
    removed = [host for host in reversed(environment.hosts) if provider.destroy(host)]
    provider.forget()
    return removed
