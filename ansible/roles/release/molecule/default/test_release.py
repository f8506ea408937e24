"""The release is complete, is the one in use, and its services cannot change it."""

import importlib
import subprocess
from pathlib import Path

import pytest
from asking import run

CURRENT = Path("/opt/streampulse/current")
SITE = next((CURRENT / "venv" / "lib").glob("python3.*/site-packages"))
MODULES = ["streampulse.host.cli", "kafka", "psycopg2", "msgspec", "pandas", "pyarrow", "fastapi", "gunicorn", "yoyo"]


def test_it_was_installed_to_its_end() -> None:
    assert CURRENT.is_symlink()
    assert list(CURRENT.glob(".complete-cp3*")), CURRENT.resolve()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_importable(module: str) -> None:
    importlib.import_module(module)


def test_its_version_is_that_of_a_wheel_that_was_pushed() -> None:
    version = run("/usr/local/bin/streampulse", "--version")
    wheels = [file.name for file in Path("/var/cache/streampulse/artifacts/release").glob("*/streampulse-*.whl")]
    assert any(name.startswith(f"streampulse-{version}-") for name in wheels), wheels


@pytest.mark.parametrize("user", ["streampulse-api", "streampulse-job"])
def test_a_service_cannot_change_its_release(user: str) -> None:
    file = SITE / "streampulse" / "host" / "cli.py"
    assert file.exists()
    done = subprocess.run(["runuser", "-u", user, "--", "touch", str(file)], check=False, capture_output=True)
    assert done.returncode != 0


def test_there_is_byte_code() -> None:
    assert list((SITE / "streampulse" / "host" / "__pycache__").glob("cli.*.pyc")), "every start would compile it"
