"""The unit templates: how services restart."""

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[3]
UNITS = jinja2.Environment(loader=jinja2.FileSystemLoader(ROOT / "systemd"), trim_blocks=True)  # noqa: S701 - no HTML


def platforms() -> dict[str, dict[str, Any]]:
    file = ROOT / "ansible/playbooks/group_vars/all/streampulse.yml"
    return dict(yaml.safe_load(file.read_text())["streampulse_platforms"])


def settings(platform: dict[str, Any]) -> dict[str, str]:
    text = UNITS.get_template("restart.j2").render(streampulse_platform=platform)
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("release", ["trixie", "bookworm", "noble"])
def test_the_delay_grows_where_systemd_can(release: str) -> None:
    platform = platforms()[release]
    found = settings(platform)
    assert found.pop("Restart") == "always"
    growing = {"RestartSec": "1", "RestartSteps": "5", "RestartMaxDelaySec": "10"}
    assert found == (growing if platform["systemd"] >= 254 else {"RestartSec": "3"})


def test_an_unprobed_host_gets_only_settings_that_every_systemd_knows() -> None:
    assert settings({}) == {"Restart": "always", "RestartSec": "3"}
