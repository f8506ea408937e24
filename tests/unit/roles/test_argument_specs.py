"""The roles' specifications and their defaults."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from streampulse_ops import paths

ROLES = paths.repository() / "ansible/roles"
#: Variables of every host, from the inventory or the tasks.
SHARED = {"private_address", "streampulse_artifacts", "streampulse_secrets", "provider"}
#: Only named in the role's defaults.
ELSEWHERE = {"grafana_repository"}


def read(role: str, file: str) -> dict[str, Any]:
    path = ROLES / role / file
    return dict(yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


@pytest.mark.parametrize("role", sorted(path.name for path in ROLES.iterdir()))
def test_a_roles_specification_and_its_defaults_agree(role: str) -> None:
    specifications = read(role, "meta/argument_specs.yml")
    options = specifications["argument_specs"]["main"].get("options") or {}
    defaults = read(role, "defaults/main.yml")
    assert set(options) - SHARED == set(defaults)
    for name, default in defaults.items():
        option = options[name]
        assert not option.get("required"), name
        # A default that follows from other variables is described in words.
        if "{{" not in str(default) and default is not None and name not in ELSEWHERE:
            assert option.get("default") == default, name
