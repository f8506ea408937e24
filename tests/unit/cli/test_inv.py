"""The script ./inv, before there is a virtual environment."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from streampulse_ops import paths

# Has all that is asked of a Python, and makes no virtual environment.
PYTHON = """#!/bin/sh
[ "$1" = -c ]
"""


def test_through_a_link_the_virtual_environment_is_the_checkouts(tmp_path: Path) -> None:
    checkout, elsewhere, programs = (tmp_path / name for name in ("a checkout", "elsewhere", "programs"))
    for folder in (checkout, elsewhere / ".venv", programs):
        folder.mkdir(parents=True)
    shutil.copy(paths.repository() / "inv", checkout / "inv")
    (programs / "python3").write_text(PYTHON)
    (programs / "python3").chmod(0o755)
    (elsewhere / "inv").symlink_to(checkout / "inv")
    done = subprocess.run(
        [elsewhere / "inv", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        check=False,
    )
    assert done.returncode == 1
    assert "the virtual environment could not be made" in done.stderr
    assert (checkout / ".venv.lock").exists()
    # One of somebody else's, beside the link, is not removed.
    assert sorted(file.name for file in elsewhere.iterdir()) == [".venv", "inv"]


# Makes a virtual environment whose uv writes down what it is told of indexes and certificates.
RECORDING = """#!/bin/sh
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$(dirname "$0")/uv" "$3/bin/uv" ;;
    "-m pip")
        case "$3 $5" in
            "config global.index-url") echo https://of.the.file/simple ;;
            "config install.proxy") echo http://proxy:3128 ;;
            "config global.trusted-host") printf 'a\nb\n' ;;
            "config "*) exit 1 ;;
            "install "*) echo "user $PIP_USER, $TMPDIR" >"$(dirname "$0")/../../pip" ;;
        esac ;;
esac
"""
UV = """#!/bin/sh
echo "$UV_DEFAULT_INDEX $UV_SYSTEM_CERTS $HTTPS_PROXY $UV_INSECURE_HOST" >>"$(dirname "$0")/../../told"
"""


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({}, "https://of.the.file/simple"),
        ({"PIP_INDEX_URL": "https://of.pip/simple"}, "https://of.pip/simple"),
        (
            {"PIP_INDEX_URL": "https://of.pip/simple", "UV_DEFAULT_INDEX": "https://of.uv/simple"},
            "https://of.uv/simple",
        ),
    ],
)
def test_settings_of_pip_apply_to_uv(tmp_path: Path, given: dict[str, str], index: str) -> None:
    checkout, programs = tmp_path / "checkout", tmp_path / "programs"
    checkout.mkdir()
    programs.mkdir()
    shutil.copy(paths.repository() / "inv", checkout / "inv")
    for name, text in (("python3", RECORDING), ("uv", UV)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "HTTP"))}
    subprocess.run(
        [checkout / "inv"],
        env={**kept, "PIP_USER": "1", **given, "PATH": f"{programs}:{kept['PATH']}"},
        check=True,
        capture_output=True,
    )
    assert (checkout / "told").read_text().splitlines()[0] == f"{index} true http://proxy:3128 a b"
    assert (checkout / "pip").read_text() == f"user 0, {checkout}/.venv\n"
