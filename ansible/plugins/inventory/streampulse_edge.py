"""Puts the hosts of a public API into the group ``edge`` where an inventory names none for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible.inventory.helpers import get_group_vars
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

DOCUMENTATION = """
name: streampulse_edge
short_description: The default of the group edge
description:
  - Where an API is public, nginx stands in front of it on the hosts of the group C(edge).
  - An inventory without such hosts gets the hosts of the group C(api).
options:
  plugin:
    description: The name of this plugin.
    required: true
    choices: [streampulse_edge]
"""


class InventoryModule(BaseInventoryPlugin):
    """The inventory source."""

    NAME = "streampulse_edge"

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = False) -> None:
        """Add the group ``edge``, and its hosts where the inventory names none."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        inventory.add_group("edge")
        if not inventory.groups["edge"].get_hosts():
            for host in self._public(inventory.groups["api"].get_hosts() if "api" in inventory.groups else []):
                inventory.add_host(host.name, group="edge")

    def _public(self, hosts: Iterable[Any]) -> list[Any]:
        """Return those hosts whose API is public: it is where hosts exist already, or where the inventory says so."""
        sources = self.inventory.processed_sources
        found = []
        for host in hosts:
            variables = combine_vars(
                get_group_vars(host.get_groups()),
                combine_vars(host.get_vars(), get_vars_from_inventory_sources(self.loader, sources, [host], "all")),
            )
            if variables.get("api_public", variables.get("provider", "existing") == "existing"):
                found.append(host)
        return found
