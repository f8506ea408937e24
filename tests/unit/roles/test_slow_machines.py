"""``timeout_factor`` stretches every wait for the start of a service."""

import re
from pathlib import Path

import pytest
from test_added_hosts import ALONE, VARIABLES, configured, contents

from streampulse_ops.environments import secrets


def limits(folder: Path) -> list[int]:
    folder.mkdir()
    units = (text for path, text in sorted(contents(configured(folder, ALONE)).items()) if "/systemd/" in path)
    return [int(found) for text in units for found in re.findall(r"(?:TimeoutStartSec=|--timeout )(\d+)", text)]


def test_a_factor_stretches_every_limit_of_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIABLES, "streampulse_secrets", secrets.generate())
    plain = limits(tmp_path / "plain")
    assert len(plain) > 15
    monkeypatch.setitem(VARIABLES, "timeout_factor", 13)
    assert limits(tmp_path / "slow") == [13 * each for each in plain]
