"""The roles' specifications and their defaults."""

from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from streampulse.core import settings
from streampulse_ops import paths

ROLES = paths.repository() / "ansible/roles"
#: Variables of every host, from the inventory or the tasks.
SHARED = {"kafka_node_id", "private_address", "streampulse_artifacts", "streampulse_secrets", "provider"}
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


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        ("api", settings.ApiSettings),
        ("generator", settings.GeneratorSettings),
        ("job", settings.JobSettings),
        ("probe", settings.ProbeSettings),
    ],
)
def test_a_services_settings_are_those_that_its_role_takes(role: str, kind: type[BaseSettings]) -> None:
    options = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"][f"{role}_settings"]["options"]
    names = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}
    known = {}
    for name, field in kind.model_json_schema()["properties"].items():
        (found, *_) = [each for each in field.get("anyOf", [field]) if each["type"] != "null"]
        known[name] = names[found["type"]]
    # The service has the defaults, so the role states none.
    assert all(option.keys() == {"description", "type"} for option in options.values())
    given = {name: option["type"] for name, option in options.items()}
    assert given == {name: known[name] for name in given}
    # The role itself writes all others, from the inventory's hosts and the secrets.
    texts = (ROLES / role / "vars/main.yml").read_text()
    texts += "".join(file.read_text() for file in (ROLES / role / "templates").iterdir())
    prefix = kind.model_config["env_prefix"]
    written = {name for name in known if f"'{name}'" in texts or f"{prefix}{name.upper()}=" in texts}
    assert known.keys() == given.keys() | written


def test_postgresqls_sum_of_connections_has_the_apis_defaults() -> None:
    stated = read("postgres", "vars/main.yml")["_postgres_api_defaults"]
    assert stated == {name: settings.ApiSettings.model_fields[name].default for name in stated}
