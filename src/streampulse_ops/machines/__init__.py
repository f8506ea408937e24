"""Providers of an environment's machines: one interface, three providers, chosen by the inventory."""

import fcntl
import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from streampulse_ops.environments.environment import Environment, Host

Report = Callable[[str], None]

_CLASSES = {
    "nspawn": "streampulse_ops.machines.nspawn:Nspawn",
    "vagrant": "streampulse_ops.machines.vagrant:Vagrant",
    "existing": "streampulse_ops.machines.existing:Existing",
}


class Provider(ABC):
    """Makes, starts, stops and removes the machines of one environment. Every method is idempotent.

    As written here, hosts exist and stay.
    """

    def __init__(self, environment: Environment, report: Report = lambda _line: None) -> None:
        self.environment = environment
        self.report = report

    def create(self, _host: Host, /) -> bool:
        """Make the machine without starting it; False if it exists."""
        return False

    @abstractmethod
    def start(self, host: Host, /) -> bool:
        """Start the machine and return when SSH answers; False if it was running."""

    def stop(self, _host: Host, /) -> bool:
        """Shut the machine down and keep its disk; False if it was not running."""
        return False

    def destroy(self, _host: Host, /) -> bool:
        """Remove the machine and its disk; False if there was none."""
        return False

    def retire(self) -> list[Host]:
        """Stop the provider's machines that the inventory no longer names; keep their disks."""
        return []

    @abstractmethod
    def running(self, host: Host, /) -> bool:
        """Return whether the machine is up, as far as the provider can tell without a login."""

    @abstractmethod
    def address(self, host: Host, /) -> str:
        """Return the machine's address."""

    def console_log(self, _host: Host, /) -> Path | None:
        """Return the file with the machine's console output, if the provider keeps one."""
        return None

    def write_inventory(self) -> Path | None:
        """Write the provider's own variables as an Ansible inventory, if it has any, and return its file."""
        return None

    def forget(self) -> None:  # noqa: B027 - nothing to do for most
        """Remove the environment's shared parts, once all machines are destroyed."""

    @abstractmethod
    def describe(self) -> str:
        """Return a short description of the provider and its system."""


def provider_for(environment: Environment, report: Report) -> Provider:
    """Return the provider that the environment's inventory names.

    :param report: called with a line for each slow step.
    """
    made: Provider = pkgutil.resolve_name(_CLASSES[environment.provider])(environment, report)
    return made


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


WORK = {"up": bring_up, "down": bring_down, "destroy": remove}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait for the lock on a folder that the environments of this machine share, and hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
