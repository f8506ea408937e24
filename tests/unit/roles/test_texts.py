"""Secrets and settings in files that a shell and systemd read."""

import re
import subprocess
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_runs import ANSIBLE, load

QUOTED = load(ANSIBLE / "plugins/filter/streampulse_text.py").FilterModule().filters()["streampulse_env"]
HOSTILE = [
    "plain", "", "it's", "''", 'a"b', "$HOME ${HOME} $(id)", "`id`", "back\\slash\\", "a,b;c&d|e #f", "ümlaut €",
    "x'; id #",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_a_shell_reads_a_hostile_value_as_it_is(value: str, tmp_path: Path) -> None:
    (tmp_path / "secret.env").write_text(f"SECRET={QUOTED(value)}\n")
    command = f'. {tmp_path}/secret.env; printf %s "$SECRET"'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (value, "")


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "a\x1bb"])
def test_a_line_end_is_refused(value: str) -> None:
    with pytest.raises(AnsibleFilterError, match="line end"):
        QUOTED(value)


def test_no_role_asks_through_a_proxy() -> None:
    for file in (ANSIBLE / "roles").glob("*/tasks/*.yml"):
        text = file.read_text()
        asks = 1 if "module_defaults:" in text else text.count("ansible.builtin.uri:")
        assert "ansible.builtin.uri:" not in text or text.count("use_proxy: false") == asks, file


def test_every_value_in_an_environment_file_is_quoted() -> None:
    for file in (ANSIBLE / "roles").glob("*/templates/*.env.j2"):
        for line in file.read_text().splitlines():
            if not line.startswith(("#", "{%")):
                assert re.fullmatch(r"[A-Z_]+(\{\{ name \| upper \}\})?=\{\{ .+ \| streampulse_env \}\}", line), (
                    f"{file}: {line}"
                )
