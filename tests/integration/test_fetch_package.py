"""fetch-package with real apt and a real, signed repository: trust, rejections and leftovers."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from apt_repository import Keyring, package, publish, scratch, served

SCRIPT = Path(__file__).parents[2] / "ansible/roles/grafana/files/fetch-package"

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("apt-get", "gpg", "dpkg-deb")), reason="apt and gpg are Debian's"
)


@dataclass
class Repository:
    root: Path
    url: str
    keyring: Keyring
    ours: str
    other: str
    packages: list[Path]

    def fetch(
        self,
        *folder: Path,
        fingerprint: str | None = None,
        version: str = "1.2",
        url: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        where = url or self.url
        words = [where, "stable", f"{where}/keys.asc", fingerprint or self.ours, "thing", version, *map(str, folder)]
        return subprocess.run(
            [str(SCRIPT), *words],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Path, Keyring, str, str]]:
    with scratch() as folder:
        keyring = Keyring(folder / "home")
        try:
            yield folder, keyring, keyring.make("ours"), keyring.make("other")
        finally:
            keyring.end()


@pytest.fixture
def repository(made: tuple[Path, Keyring, str, str]) -> Iterator[Repository]:
    folder, keyring, ours, other = made
    root = folder / "repository"
    content = folder / "content"
    (content / "usr/share/thing").mkdir(parents=True)
    (content / "usr/share/thing/file").write_text("thing\n")
    root.mkdir()
    packages = [package(root, "thing", version, content) for version in ("1.1", "1.2")]
    publish(root, packages, keyring, ours)
    # As in Grafana's file, which also holds keys of former years.
    (root / "keys.asc").write_text(keyring.export(other, ours))
    with served(root) as url:
        yield Repository(root, url, keyring, ours, other, packages)
    shutil.rmtree(root)
    shutil.rmtree(content)


def state_of_apt() -> list[tuple[str, float]]:
    """Return everything below apt's folders with its modification time."""
    return sorted(
        (str(path), path.stat().st_mtime)
        for folder in ("/etc/apt", "/var/lib/apt/lists", "/var/cache/apt/archives")
        for path in Path(folder).rglob("*")
        if path.exists()
    )


@pytest.fixture(autouse=True)
def leaves_apt_alone() -> Iterator[None]:
    before = state_of_apt()
    scratches = set(Path("/tmp").glob("streampulse-fetch-*"))  # noqa: S108 - the script's own scratch folder
    yield
    assert state_of_apt() == before
    assert set(Path("/tmp").glob("streampulse-fetch-*")) <= scratches  # noqa: S108


def test_the_version_that_is_asked_for_is_fetched(repository: Repository, tmp_path: Path) -> None:
    done = repository.fetch(tmp_path / "new", version="1.1")
    assert (done.returncode, done.stderr) == (0, "")
    file = Path(done.stdout.strip())
    assert file.parent == tmp_path / "new"
    assert file.read_bytes() == repository.packages[0].read_bytes()


def test_without_a_folder_nothing_is_fetched(repository: Repository) -> None:
    repository.packages[1].unlink()
    done = repository.fetch(version="1.2")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def signed_by_another_key(repository: Repository) -> None:
    publish(repository.root, repository.packages, repository.keyring, repository.other)


def without_the_key(repository: Repository) -> None:
    (repository.root / "keys.asc").write_text(repository.keyring.export(repository.other))


def with_another_package(repository: Repository) -> None:
    data = bytearray(repository.packages[1].read_bytes())
    data[-10] ^= 1
    repository.packages[1].write_bytes(data)


def with_other_lists(repository: Repository) -> None:
    signed = repository.root / "dists/stable/InRelease"
    signed.write_text(signed.read_text().replace("Origin: tests", "Origin: twists"))


def without_a_signature(repository: Repository) -> None:
    (repository.root / "dists/stable/InRelease").unlink()


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (signed_by_another_key, "not signed by the key"),
        (without_the_key, "not signed by the key"),
        (with_another_package, "Hash Sum mismatch"),
        (with_other_lists, "not signed by the key"),
        (without_a_signature, "not signed"),
    ],
)
def test_a_forged_repository_is_refused(
    repository: Repository, tmp_path: Path, forge: Callable[[Repository], None], said: str
) -> None:
    forge(repository)
    done = repository.fetch(tmp_path)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_version_that_is_not_there_is_told_with_those_that_are(repository: Repository, tmp_path: Path) -> None:
    done = repository.fetch(tmp_path, version="9.9")
    assert done.returncode == 1
    assert done.stderr.strip() == f"{repository.url} has no thing 9.9 for this host; it has 1.2, 1.1"


# The first is the repository itself, without its keys.
@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9", "http://repository.invalid"])
def test_an_unreachable_repository_ends_with_3_and_one_line(
    repository: Repository, tmp_path: Path, url: str | None
) -> None:
    (repository.root / "keys.asc").unlink()
    url = url or repository.url
    done = repository.fetch(tmp_path, url=url)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith(f"{url}/keys.asc: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_silent_repository_is_given_up_after_seconds(repository: Repository, tmp_path: Path) -> None:
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        started = time.monotonic()
        done = repository.fetch(tmp_path, url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert done.returncode == 3
    assert time.monotonic() - started < 12


def test_the_hosts_own_proxy_for_apt_is_used(repository: Repository, tmp_path: Path) -> None:
    configured = tmp_path / "apt.conf"
    configured.write_text('Acquire::http::Proxy "http://127.0.0.1:9";\n')
    done = repository.fetch(tmp_path, environment={"APT_CONFIG": str(configured)})
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stderr


def test_wrong_usage_ends_with_2() -> None:
    done = subprocess.run([SCRIPT, "one"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "REPOSITORY SUITE KEY" in done.stderr
