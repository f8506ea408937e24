"""Base images of nspawn machines, built once and kept under the digest of their recipe."""

import contextlib
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from streampulse.core.errors import OperatorError
from streampulse_ops.command import CommandError, run
from streampulse_ops.machines import Report, apt, locked

NEEDED_BYTES = 3 * 2**30

SUITES = {"debian12": "bookworm", "debian13": "trixie"}
NAMES = {"debian12": "Debian 12", "debian13": "Debian 13"}

# A machine like a cloud provider's: boots, has SSH and Python, nothing of streampulse.
PACKAGES = (
    "ca-certificates", "dbus", "iproute2", "iptables", "openssh-server", "procps", "python3", "python3-apt",
    "python3-venv", "rsync", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
# $1 is the new system's root. Every machine makes its own identity.
HOOKS = (
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname "$1"/etc/resolv.conf',
    ': > "$1"/etc/machine-id',
    'rm -f "$1"/var/cache/apt/archives/*.deb',
)
# The package lists are kept, so that a machine's first install does not download them.
OPTIONS = ("--variant=minbase", "--skip=cleanup/apt")


@dataclass(frozen=True)
class Image:
    """The base system of one distribution."""

    os: str
    folder: Path

    @property
    def digest(self) -> str:
        """Digest of everything that determines the image."""
        recipe = "\n".join((SUITES[self.os], *OPTIONS, *PACKAGES, *HOOKS))
        return hashlib.sha256(recipe.encode()).hexdigest()[:16]

    @property
    def root(self) -> Path:
        """The image's root directory, read-only once complete."""
        return self.folder / f"{self.os}-{self.digest}"

    @property
    def kept(self) -> Path:
        """Files that machines of this image fetched or made, kept for the next machine under the same path."""
        return self.folder / f"{self.os}-{self.digest}.kept"

    def build(self, report: Report) -> bool:
        """Build the image unless it exists; False if it does.

        :raises OperatorError: there is no space, or the packages cannot be fetched.
        """
        with locked(self.folder):
            if self.root.is_dir():
                return False
            check_space(self.folder, NEEDED_BYTES, f"the {NAMES[self.os]} image")
            report(f"building the {NAMES[self.os]} image, once (about 40 s)")
            self._build()
        return True

    def _build(self) -> None:
        partial = self.root.with_name(self.root.name + ".partial")
        _remove(partial)
        hooks = [f"--customize-hook={hook}" for hook in HOOKS]
        include = f"--include={','.join(PACKAGES)}"
        # The way to the packages is no part of the digest: each machine gets its own.
        proxies = [f"--aptopt={line}" for line in apt.proxies()]
        suite = SUITES[self.os]
        with contextlib.ExitStack() as undo:
            undo.callback(_remove, partial)
            try:
                run(["mmdebstrap", "--quiet", *OPTIONS, *proxies, include, *hooks, suite, partial, *apt.sources(suite)])
            except CommandError as error:
                raise OperatorError(
                    f"the {NAMES[self.os]} image cannot be built: {error}; check that this host reaches a Debian "
                    f"mirror that has {suite} (apt-get update), then run the task again"
                ) from None
            undo.pop_all()
        partial.rename(self.root)


def _remove(folder: Path) -> None:
    """Remove a half-made image. The next build removes the rest (files of a killed build's children)."""
    if any(Path(each.mountpoint).is_relative_to(folder) for each in psutil.disk_partitions(all=True)):
        raise OperatorError(f"something is mounted below {folder}: umount it, then run the task again")
    shutil.rmtree(folder, ignore_errors=True)


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Check the free space of a file system.

    :param needed: bytes.
    :raises OperatorError: there is less.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OperatorError(
            f"{folder} has {free / 2**30:.1f} GiB free and {purpose} needs {needed / 2**30:.0f} GiB: make room there "
            "(du -xsh /var/lib/streampulse-machines/* shows what our own machines take)"
        )
