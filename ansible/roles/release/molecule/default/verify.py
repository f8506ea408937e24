"""Asserts that the release is whole, is the one in use, and cannot be changed by the services that run it."""

import importlib
import subprocess
from pathlib import Path

CURRENT = Path("/opt/streampulse/current")
assert CURRENT.is_symlink(), "there is no current release"
assert any(CURRENT.glob(".complete-cp3*")), f"{CURRENT.resolve()} was not installed to its end"

for module in (
    "streampulse.host.cli",
    "kafka",
    "psycopg2",
    "msgspec",
    "pandas",
    "pyarrow",
    "fastapi",
    "gunicorn",
    "yoyo",
):
    importlib.import_module(module)

version = subprocess.run(["/usr/local/bin/streampulse", "--version"], check=True, capture_output=True, text=True).stdout
wheels = [file.name for file in Path("/var/cache/streampulse/artifacts/release").glob("*/streampulse-*.whl")]
assert any(name.startswith(f"streampulse-{version.strip()}-") for name in wheels), (
    f"{version.strip()} is none of {wheels}"
)

site = next((CURRENT / "venv" / "lib").glob("python3.*/site-packages"))
for user in ("streampulse-api", "streampulse-job"):
    touched = subprocess.run(
        ["runuser", "-u", user, "--", "touch", str(site / "streampulse" / "cli.py")], check=False, capture_output=True
    )
    assert touched.returncode != 0, f"{user} can change the release it runs"
compiled = list((site / "streampulse").glob("__pycache__/cli.*.pyc"))
assert compiled, "there is no byte code, so every start would make it anew"
