"""Says whether an environment's API is public, and makes the groups that follow from the services."""

from pathlib import Path
from typing import Any

import yaml
from ansible.inventory.helpers import get_group_vars
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

DOCUMENTATION = """
name: streampulse_edge
short_description: Whether the API is public, and the groups that follow from the services
description:
  - Sets C(streampulse_api_public) for every host. The API is public where hosts exist already, or where the inventory
    sets C(api_public).
  - Where it is, nginx stands in front of it on the hosts of the group C(edge). An inventory without such hosts gets the
    hosts of the group C(api).
  - The drivers of the job run on the hosts of the group C(job). An inventory without such hosts gets those of the group
    C(spark_master).
  - The group C(streampulse_base) has the hosts of every service of the base stack, by C(ansible/services.yml).
options:
  plugin:
    description: The name of this plugin.
    required: true
    choices: [streampulse_edge]
"""


SERVICES = Path(__file__).parents[2] / "services.yml"


class InventoryModule(BaseInventoryPlugin):
    """The inventory source."""

    NAME = "streampulse_edge"

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = False) -> None:
        """Set the variable, and add ``streampulse_base`` and, where the inventory names none, ``edge`` and ``job``."""
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
        inventory.add_group("job")
        if not inventory.groups["job"].get_hosts() and "spark_master" in inventory.groups:
            for host in inventory.groups["spark_master"].get_hosts():
                inventory.add_host(host.name, group="job")
        inventory.add_group("streampulse_base")
        services = yaml.safe_load(SERVICES.read_text(encoding="utf-8"))["streampulse_services"]
        for service in services:
            if service["group"] in inventory.groups and not service.get("full"):
                inventory.add_child("streampulse_base", service["group"])

    def _public(self, host: Any) -> bool:
        """Return whether a host's variables make its API public."""
        sources = self.inventory.processed_sources
        variables = combine_vars(
            get_group_vars(host.get_groups()),
            combine_vars(host.get_vars(), get_vars_from_inventory_sources(self.loader, sources, [host], "all")),
        )
        default = variables.get("provider", "existing") == "existing"
        return bool(boolean(variables.get("api_public", default), strict=False))
