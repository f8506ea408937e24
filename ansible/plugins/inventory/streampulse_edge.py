"""Says whether an environment's API is public, and gives the group ``edge`` its default."""

from __future__ import annotations

from typing import Any

from ansible.inventory.helpers import get_group_vars
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

DOCUMENTATION = """
name: streampulse_edge
short_description: Whether the API is public, and the default of the group edge
description:
  - Sets C(streampulse_api_public) for every host. The API is public where hosts exist already, or where the inventory
    sets C(api_public).
  - Where it is, nginx stands in front of it on the hosts of the group C(edge). An inventory without such hosts gets the
    hosts of the group C(api).
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
        """Set the variable, and add the group ``edge`` with its hosts where the inventory names none."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        inventory.add_group("edge")
        api = inventory.groups["api"].get_hosts() if "api" in inventory.groups else []
        public = any(self._public(host) for host in api)
        for name in inventory.hosts:
            inventory.set_variable(name, "streampulse_api_public", public)
        if public and not inventory.groups["edge"].get_hosts():
            for host in api:
                inventory.add_host(host.name, group="edge")

    def _public(self, host: Any) -> bool:
        """Return whether a host's variables make its API public."""
        sources = self.inventory.processed_sources
        variables = combine_vars(
            get_group_vars(host.get_groups()),
            combine_vars(host.get_vars(), get_vars_from_inventory_sources(self.loader, sources, [host], "all")),
        )
        default = variables.get("provider", "existing") == "existing"
        return bool(boolean(variables.get("api_public", default), strict=False))
