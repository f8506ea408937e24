"""Artifacts: pins are held, sets are whole or not there, and nothing is fetched twice."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops import artifacts, paths
from streampulse_ops.artifacts import jars, release, wheels
from streampulse_ops.artifacts.python import pip
from streampulse_ops.artifacts.store import ArtifactSet, Store, digest_of, sha256_of
from streampulse_ops.environments.environment import Environment

LOCK = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via pandas
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:ba
# a comment
colorama==1.0 ; sys_platform == 'win32' \\
    --hash=sha256:ca
sdnotify==0.3.2 \\
    --hash=sha256:da
"""


def quiet(_line: str) -> None:
    pass


def test_conditions_are_those_of_the_host_not_of_this_python() -> None:
    assert wheels.for_python(LOCK, "cp313", "x86_64") == {
        "numpy": "numpy==2.5.5 --hash=sha256:ba",
        "sdnotify": "sdnotify==0.3.2 --hash=sha256:da",
    }
    assert wheels.for_python(LOCK, "cp311", "x86_64")["numpy"] == "numpy==2.4.6 --hash=sha256:aa --hash=sha256:ab"


def made(folder: Path, _report: object) -> None:
    (folder / "a.jar").write_bytes(b"a")


def test_a_set_is_made_once_and_again_when_a_file_is_gone(tmp_path: Path) -> None:
    store, item = Store(tmp_path), ArtifactSet("kafka", "d1", made, "making")
    assert store.ensure(item, quiet)
    assert not store.ensure(item, quiet)
    assert Store.rehash(store.folder(item)) == 1
    (store.folder(item) / "a.jar").unlink()
    assert store.ensure(item, quiet)
    (store.folder(item) / "a.jar").write_bytes(b"b")
    with pytest.raises(OperatorError, match=r"a\.jar has changed since it was made"):
        Store.rehash(store.folder(item))


@pytest.mark.parametrize("error", [OperatorError("no network"), KeyboardInterrupt()])
def test_a_set_that_could_not_be_made_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(folder: Path, _report: object) -> None:
        (folder / "half.jar").touch()
        raise error

    store = Store(tmp_path)
    with pytest.raises(type(error)):
        store.ensure(ArtifactSet("kafka", "d1", fail, "making"), quiet)
    assert list((tmp_path / "kafka").iterdir()) == []


PIP = """#!/bin/sh
echo "error: could not write file: No space left on device"
echo "$TMPDIR: a build failed" >&2
exit 1
"""


@pytest.mark.parametrize("told", ["No space left on device", "no route"])
def test_a_build_is_made_beside_the_cache_and_names_it_when_full(tmp_path: Path, told: str) -> None:
    program = tmp_path / "python"
    program.write_text(PIP.replace("No space left on device", told))
    program.chmod(0o755)
    advice = f"df -h {paths.cache_home()}" if "space" in told else f"{tmp_path}: a build failed; check that pip reaches"
    with pytest.raises(OperatorError, match=f"pyspark could not be fetched: .*{advice}"):
        pip(program, ["wheel"], "pyspark", tmp_path)


def test_sets_that_nothing_uses_are_removed_but_the_last_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    items = [ArtifactSet("kafka", f"d{number}", made, "making") for number in range(6)]
    for age, item in enumerate(items):
        store.ensure(item, quiet)
        os.utime(store.folder(item) / "SHA256SUMS", (age, age))
    store.ensure(items[1], quiet)  # used again: now the last one
    assert store.prune({store.folder(items[0])}) == ["kafka/d3", "kafka/d2"]
    assert sorted(folder.name for folder in (tmp_path / "kafka").iterdir()) == ["d0", "d1", "d4", "d5"]


def test_artifacts_of_an_environment_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "MACHINES_STATE", tmp_path / "none")
    (tmp_path / "streampulse/demo").mkdir(parents=True)
    facts = {"kafka": {"path": "/c/kafka/1"}, "wheels": {"cp313": {"path": "/c/wheels-cp313/2"}}}
    prepared = artifacts.Prepared({"streampulse_artifacts": facts}, 2, 0, 0)
    file = tmp_path / "streampulse/demo/artifacts.json"
    artifacts.write_facts(prepared, file)
    assert {str(folder) for folder in artifacts._in_use()} == {"/c/kafka/1", "/c/wheels-cp313/2"}
    assert list(file.parent.iterdir()) == [file]
    for broken in (file.read_text()[:40], "{}", "[]"):
        file.write_text(broken)
        with pytest.raises(OperatorError, match=f"rm {file}; inv up --env demo"):
            list(artifacts._in_use())


def test_a_wrong_hash_names_the_jar(tmp_path: Path) -> None:
    (tmp_path / "x-1.jar").write_bytes(b"x")
    right = sha256_of(tmp_path / "x-1.jar")
    jars.check({"org.x:x:1": right}, tmp_path)
    with pytest.raises(OperatorError, match=r"org\.x:x:1 has the wrong hash: artifacts\.lock\.yml pins 00, fetched"):
        jars.check({"org.x:x:1": "00"}, tmp_path)
    with pytest.raises(OperatorError, match=r"org\.x:y:1 was not fetched"):
        jars.check({"org.x:y:1": right}, tmp_path)


def test_mavens_list_is_read_and_other_files_than_jars_are_refused() -> None:
    text = "\nThe following files have been resolved:\n   org.x:y:jar:1.0:runtime -- module y\n   a:b:jar:2:compile\n"
    assert jars.parse_listing(text) == ["a:b:2", "org.x:y:1.0"]
    with pytest.raises(OperatorError, match="native"):
        jars.parse_listing("   org.x:y:jar:native:1.0:runtime\n")


def test_every_root_is_pinned() -> None:
    root = paths.repository()
    wanted = yaml.safe_load((root / "artifacts.yml").read_text())
    lock = jars.read_lock(root)
    for name in jars.SETS:
        pinned = {jar["coordinate"] for jar in lock[name]["jars"]}
        assert pinned >= set(wanted[name]["jars"]), "run inv artifacts --relock"
        assert lock[name]["version"] == str(wanted[name]["version"])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files under version control."""
    root, copy = paths.repository(), tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, copy / name)
    return copy


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("src/streampulse/events.py", True), ("src/streampulse/api/static/page.html", True),
        ("sql/0001.base.sql", True), ("requirements/host.lock", True), ("README.md", False), ("LICENSE", False),
        ("pyproject.toml", False), ("ansible/services.yml", False), ("docs/runbooks/kafka-down.md", False),
        ("grafana/dashboards/streampulse-overview.json", False), ("prometheus/rules/alerts.yml.j2", False),
        ("prometheus/values.yml", False), ("src/streampulse_ops/services.py", False),
    ],
)  # fmt: skip
def test_a_release_changes_only_with_files_of_hosts(checkout: Path, name: str, counts: bool) -> None:
    before = release.release_set(checkout).digest
    with (checkout / name).open("a") as handle:
        handle.write("\n# changed\n")
    assert (release.release_set(checkout).digest != before) is counts


def test_the_wheel_is_built_as_pyproject_says(checkout: Path, tmp_path: Path) -> None:
    project = tomllib.loads((paths.repository() / "pyproject.toml").read_text())
    build = tomllib.loads(release.BUILD)
    for name in ("name", "scripts", "requires-python"):
        assert build["project"][name] == project["project"][name]
    assert build["tool"]["hatch"]["build"]["targets"] == project["tool"]["hatch"]["build"]["targets"]
    made = release.release_set(checkout)
    made.make(tmp_path, lambda _: None)
    assert {file.name for file in tmp_path.iterdir()} == {made.more["wheel"], "host.lock"}


@pytest.mark.parametrize(
    ("provider", "given", "here", "wanted"),
    [
        ("existing", {}, "arm64", "x86_64"),
        ("existing", {"host_architecture": "arm64"}, "x86_64", "aarch64"),
        ("nspawn", {}, "aarch64", "aarch64"),
        ("vagrant", {}, "arm64", "aarch64"),
        ("vagrant", {"host_architecture": "amd64"}, "arm64", "x86_64"),
    ],
)
def test_wheels_are_for_the_hosts_and_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, provider: str, given: dict[str, str], here: str, wanted: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: here)
    environment = Environment("demo", Path("demo"), (), {"provider": provider, **given})
    machine = artifacts.architecture_of(environment)
    assert machine == wanted
    made = wheels.wheel_set(paths.repository(), "cp313", machine)
    assert made.facts(Path("/x"))["machine"] == wanted
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[wanted]
    assert made.digest != wheels.wheel_set(paths.repository(), "cp313", other).digest


def test_an_architecture_without_wheels_is_refused() -> None:
    environment = Environment("demo", Path("demo"), (), {"provider": "existing", "host_architecture": "riscv64"})
    with pytest.raises(OperatorError, match=r"host_architecture of demo is riscv64: .*hosts\.yml"):
        artifacts.architecture_of(environment)


@pytest.mark.parametrize("given", ["cp313", ["cp399"], [], {"cp313": 1}])
def test_pythons_that_are_not_supported_are_refused(given: object) -> None:
    environment = Environment("demo", Path("demo"), (), {"provider": "existing", "host_pythons": given})
    with pytest.raises(OperatorError, match=r"host_pythons of demo is .* list some of cp311, cp313, cp312"):
        artifacts.pythons_of(environment)


UV = """#!/bin/sh
case "$*" in
    *" venv "*) for last; do :; done; mkdir -p "$last/lib/python3.x/site-packages" ;;
    *"--target "*) mkdir -p "$(echo "$*" | sed 's/.*--target \\([^ ]*\\).*/\\1/')" ;;
esac
"""


def test_an_upgraded_host_gets_another_virtual_environment(tmp_path: Path) -> None:
    role = paths.repository() / "ansible/roles/release"
    script = (role / "files/install-release").read_text().replace("/opt/streampulse", str(tmp_path / "opt"))
    (tmp_path / "install-release").write_text(script)
    (tmp_path / "release").mkdir()
    for python in ("cp311", "cp313"):
        wheels_of = tmp_path / f"wheels-{python}"
        wheels_of.mkdir()
        with zipfile.ZipFile(wheels_of / "uv-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("uv-1.data/scripts/uv", UV)
        folders = [str(folder) for folder in (tmp_path / "new", wheels_of, tmp_path / "release")]
        words = [*folders, "x.whl", sys.executable, f".complete-{python}"]
        subprocess.run(["sh", tmp_path / "install-release", *words], check=True)
        (tmp_path / "new/venv" / python).touch()
    assert [file.name for file in (tmp_path / "new").glob(".complete*")] == [".complete-cp313"]
    assert not (tmp_path / "new/venv/cp311").exists()
    # The marker that the role waits for has the Python's name, so the script runs again after an upgrade.
    assert "streampulse_platform.python" in yaml.safe_load((role / "vars/main.yml").read_text())["_release_marker"]
    install = yaml.safe_load((role / "tasks/install.yml").read_text())[0]["ansible.builtin.script"]
    assert install["creates"].endswith("{{ _release_marker }}")
    assert install["cmd"].strip().endswith("{{ _release_marker }}")


def test_a_digest_depends_on_the_borders_of_its_parts() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")
