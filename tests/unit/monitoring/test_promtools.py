"""Prometheus' programs, installed or from apt's packages, and the linter made of them."""

import stat
import sys
from pathlib import Path

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops.cli.console import Screen
from streampulse_ops.monitoring import promlint, promtools
from streampulse_ops.quality import suite as quality


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this a machine with a folder of programs of its own, an empty cache, and what was run in ``log``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # /usr/sbin may hold a Prometheus of this machine's.
    monkeypatch.setattr("streampulse_ops.command.ADMIN_PATH", "")
    return tmp_path


def with_apt(machine: Path, *packages: str, listed: bool = True) -> None:
    """Give the machine an apt that has some packages, and a dpkg-deb that unpacks them.

    :param listed: whether apt knows of them before it has been updated.
    """
    if listed:
        (machine / "lists").touch()
    script(
        machine / "bin",
        "apt-get",
        f"""echo "apt-get $*" >> {machine}/log
case "$1" in
update) : > {machine}/lists ;;
download)
  [ -e {machine}/lists ] || {{ echo "E: Unable to locate package $2" >&2; exit 100; }}
  case " {" ".join(packages)} " in *" $2 "*) : > "$2_1_amd64.deb" ;;
  *) echo "E: Unable to locate package $2" >&2; exit 100 ;; esac ;;
esac""",
    )
    script(
        machine / "bin",
        "dpkg-deb",
        """PATH=/usr/bin:/bin
mkdir -p "$3/usr/bin"
echo '#!/bin/sh' > "$3/usr/bin/promtool"
chmod 755 "$3"/usr/bin/promtool""",
    )
    script(machine / "bin", "sudo", 'shift; exec "$@"')


def ran(machine: Path) -> list[str]:
    log = machine / "log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_a_program_that_is_there_is_used(machine: Path) -> None:
    there = script(machine / "bin", "promtool", "exit 0")
    assert promtools.find("promtool", pytest.fail) == there
    assert not (machine / "cache").exists()


def test_a_missing_program_comes_out_of_its_package_once(machine: Path) -> None:
    with_apt(machine, "prometheus")
    found = promtools.find("promtool", lambda _: None)
    assert found == machine / "cache/streampulse/packages/prometheus/usr/bin/promtool"
    assert found.stat().st_mode & stat.S_IXUSR
    # Debian 13's package is asked for first.
    assert ran(machine) == ["apt-get download promtool", "apt-get download prometheus"]


@pytest.mark.parametrize(("apt", "said"), [(False, "apt-get"), (True, "Unable to locate package prometheus")])
def test_a_program_that_apt_cannot_download_is_one_line(machine: Path, apt: bool, said: str) -> None:
    if apt:
        with_apt(machine)
    with pytest.raises(promtools.Unavailable, match=rf"promtool is not installed, .*{said}.*PATH") as caught:
        promtools.find("promtool", lambda _: None)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("machine")
def test_a_linter_without_its_program_reports_that_and_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promlint.main() == promlint.NOT_DONE
    assert "the rules were not looked at: promtool is not installed" in capsys.readouterr().out
    command = [sys.executable, "-c", f"print('the rules were not looked at'); exit({promlint.NOT_DONE})"]
    monkeypatch.setattr(quality, "linters", lambda _: [(quality.RULES, command)])
    monkeypatch.setattr("streampulse_ops.machines.tools.ensure", lambda *_: None)
    assert quality.lint(Screen()) == "no complaint"
    said = capsys.readouterr().out
    assert "not done" in said
    assert "the rules were not looked at" in said


def test_a_rule_that_promtool_refuses_is_shown(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(machine / "bin", "promtool", 'echo "FAILED: $1 $2"; exit 1')
    script(
        machine / "bin", "amtool", 'case "$*" in *check-config*) exit 0 ;; esac; echo "WARNING: wrong receiver"; exit 1'
    )
    assert promlint.main() == 1
    said = capsys.readouterr().out
    assert "FAILED: check rules" in said
    assert "FAILED: test rules" in said
    assert "wrong receiver" in said


def test_every_way_to_set_receivers_is_looked_at(machine: Path) -> None:
    log = machine / "log"
    script(machine / "bin", "promtool", "exit 0")
    script(machine / "bin", "amtool", f'echo "$# $*" >> {log}')
    assert promlint.main() == 0
    first, *routes = ran(machine)
    # With no setting, with each and with all, behind the word check-config.
    assert first.startswith(f"{len(promlint.SETTINGS) + 3} check-config")
    assert len(routes) == len(promlint.ROUTES)


def test_a_machine_without_lists_of_packages_gets_them(machine: Path) -> None:
    with_apt(machine, "promtool", listed=False)
    assert promtools.find("promtool", lambda _: None).exists()
    assert "apt-get update -qq" in ran(machine)
    assert promtools.find("promtool", pytest.fail).exists(), "the second time nothing is downloaded"


def test_another_linter_that_ends_with_that_code_complains(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", f"exit({promlint.NOT_DONE})"]
    monkeypatch.setattr(quality, "linters", lambda _: [("mypy", command)])
    monkeypatch.setattr("streampulse_ops.machines.tools.ensure", lambda *_: None)
    with pytest.raises(OperatorError, match="mypy: see above"):
        quality.lint(Screen())
