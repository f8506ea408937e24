"""The store of artifact sets. A set is complete or absent, and has one builder at a time."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse_ops.machines import Report

SUMS = "SHA256SUMS"
# Spark's source package is unpacked, built and packed beside the store.
NEEDED_BYTES = 3 * 2**30
#: Number of unused sets of each name to keep: the most recently used.
SPARE = 3


@dataclass(frozen=True)
class ArtifactSet:
    """One set: its name, the digest of its pins, and its builder."""

    name: str
    digest: str
    make: Callable[[Path, Report], None]
    purpose: str
    more: Mapping[str, str] = field(default_factory=dict)

    def facts(self, folder: Path) -> dict[str, Any]:
        """Return the set's variables for the roles."""
        return {"digest": self.digest, "path": str(folder), **self.more}


def digest_of(*parts: str | bytes) -> str:
    """Return one digest of several texts; the border between two texts counts."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:20]


def sha256_of(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Store:
    """The sets on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, item: ArtifactSet) -> Path:
        """Return the path of a set, whether it exists or not."""
        return self.root / item.name / item.digest

    def size(self, item: ArtifactSet) -> int:
        """Return a set's size in bytes."""
        return sum(file.stat().st_size for file in self.folder(item).iterdir())

    def ensure(self, item: ArtifactSet, report: Report) -> bool:
        """Make a set unless it exists; False if it does.

        :raises OperatorError: it cannot be made, or there is no space for it.
        """
        if self._complete(item):
            with contextlib.suppress(OSError):  # a read-only cache is usable
                os.utime(self.folder(item) / SUMS)  # the time of the last use, for prune()
            return False
        parent = self.root / item.name
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OperatorError(
                f"{parent} cannot be made ({error.strerror}): correct its mode, or set XDG_CACHE_HOME to another folder"
            ) from None
        with (self.root / f".{item.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._complete(item):
                return False
            free = shutil.disk_usage(parent).free
            if free < NEEDED_BYTES:
                raise OperatorError(
                    f"{parent} has {free / 2**30:.1f} GiB free and building artifacts needs {NEEDED_BYTES / 2**30:.0f} "
                    "GiB: make room there, or set XDG_CACHE_HOME to another folder"
                )
            report(item.purpose)
            self._make(item, report)
        return True

    def prune(self, used: Collection[Path]) -> list[str]:
        """Remove unused sets except the last SPARE of each name, and return ``name/digest`` of each.

        :param used: folders of sets that stay.
        """
        removed = []
        for parent in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if not parent.is_dir():
                continue
            unused = [file for file in parent.glob(f"*/{SUMS}") if file.parent not in used]
            unused.sort(key=lambda file: file.stat().st_mtime, reverse=True)
            for file in unused[SPARE:]:
                # Remove the list first: without it the set counts as absent even if the removal is interrupted.
                file.unlink()
                shutil.rmtree(file.parent)
                removed.append(f"{parent.name}/{file.parent.name}")
        return removed

    def _make(self, item: ArtifactSet, report: Report) -> None:
        folder = self.folder(item)
        partial = folder.with_name(f".{item.digest}.partial")
        for leftover in (partial, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        partial.mkdir()
        try:
            item.make(partial, report)
            sums = [f"{sha256_of(file)}  {file.name}" for file in sorted(partial.iterdir())]
            (partial / SUMS).write_text("\n".join(sums) + "\n", encoding="utf-8")
        except BaseException:
            shutil.rmtree(partial)
            raise
        partial.rename(folder)

    def _complete(self, item: ArtifactSet) -> bool:
        return all((self.folder(item) / name).is_file() for name in (SUMS, *self._listed(self.folder(item))))

    @staticmethod
    def _listed(folder: Path) -> dict[str, str]:
        file = folder / SUMS
        if not file.is_file():
            return {}
        lines = file.read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}

    @classmethod
    def rehash(cls, folder: Path) -> int:
        """Verify the hashes of a set's files and return the number of files.

        :raises OperatorError: a file does not match its set's list.
        """
        listed = cls._listed(folder)
        for name, digest in listed.items():
            if sha256_of(folder / name) != digest:
                raise OperatorError(f"{folder / name} has changed since it was made: rm -r {folder} and inv artifacts")
        return len(listed)
