"""A signed apt repository for tests, with packages built on the spot, served over HTTP."""

import contextlib
import functools
import hashlib
import http.server
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from pathlib import Path


class Keyring:
    """Keys in a separate GnuPG home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)

    def gpg(self, *arguments: str) -> str:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def make(self, name: str) -> str:
        """Make a key and return its fingerprint."""
        self.gpg("--passphrase", "", "--quick-generate-key", f"{name} <{name}@example.org>", "rsa3072", "sign", "never")
        lines = self.gpg("--with-colons", "--list-keys", f"{name}@example.org").splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def export(self, *fingerprints: str) -> str:
        """Return public keys in one armoured block, as repositories publish theirs."""
        return self.gpg("--armor", "--export", *fingerprints)

    def end(self) -> None:
        """End the agent that gpg has started."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=True)


def package(folder: Path, name: str, version: str, content: Path, scripts: Mapping[str, str] | None = None) -> Path:
    """Build a package for every architecture and return its file.

    :param content: a folder whose files are installed.
    :param scripts: scripts of dpkg, by name.
    """
    root = folder / f"{name}-{version}"
    shutil.copytree(content, root)
    control = root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: tests <tests@example.org>\n"
        f"Description: made by streampulse's tests\n"
    )
    for script, text in (scripts or {}).items():
        (control / script).write_text(text)
        (control / script).chmod(0o755)
    made = folder / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, made], check=True, capture_output=True)
    shutil.rmtree(root)
    return made


def publish(root: Path, packages: list[Path], keyring: Keyring, signed_by: str, suite: str = "stable") -> None:
    """Write a repository's lists over its packages, and sign them.

    :param root: the repository; the packages are in it.
    :param signed_by: fingerprint of the key.
    """
    lists = root / "dists" / suite / "main" / "binary-all"
    lists.mkdir(parents=True, exist_ok=True)
    entries = []
    for file in packages:
        fields = subprocess.run(["dpkg-deb", "--field", file], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        entries.append(f"{fields}Filename: {file.relative_to(root)}\nSize: {file.stat().st_size}\nSHA256: {digest}\n")
    (lists / "Packages").write_text("\n".join(entries))
    text = (lists / "Packages").read_bytes()
    release = root / "dists" / suite / "Release"
    release.write_text(
        f"Origin: tests\nSuite: {suite}\nCodename: {suite}\nDate: {formatdate(usegmt=True)}\n"
        "Architectures: all amd64 arm64\nComponents: main\n"
        f"SHA256:\n {hashlib.sha256(text).hexdigest()} {len(text)} main/binary-all/Packages\n"
    )
    signed = release.with_name("InRelease")
    signed.unlink(missing_ok=True)
    keyring.gpg("--local-user", signed_by, "--clearsign", "--output", str(signed), str(release))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def served(root: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """Serve a folder and yield its URL."""
    handler = functools.partial(_Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder with a short path: gpg's agent has a socket in its home, and socket paths must be short."""
    with tempfile.TemporaryDirectory(prefix="sp-apt-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
