"""A service restarts when the files that it was started from change, and only then."""

from typing import Any

import pytest
import yaml

from streampulse_ops import paths

ROLES = paths.repository() / "ansible/roles"


def watched(role: str) -> str:
    """Return the paths whose change restarts a role's service, as written."""
    variables: dict[str, Any] = yaml.safe_load((ROLES / role / "vars/main.yml").read_text())
    return str(variables[f"_{role}_watch"])


@pytest.mark.parametrize(
    "role",
    sorted(file.parts[-3] for file in ROLES.glob("*/tasks/service.yml") if file.parts[-3] not in ("base", "spark")),
)
def test_a_service_restarts_with_its_unit_and_not_with_files_that_it_reloads(role: str) -> None:
    found = watched(role)
    assert "drop_in" in found or "/etc/systemd/system/" in found
    for part in ("rules", "dashboards", "runbooks", "services.json", "topics.json", "pg_hba", "prometheus.yml"):
        assert part not in found
    text = (ROLES / role / "tasks/service.yml").read_text()
    assert f'watch: "{{{{ _{role}_watch }}}}"' in text
