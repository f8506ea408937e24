"""Rate limits that all workers of a host share: the counters of the ``limits`` library in a file that all map.

A table of a fixed number of slots. A key is found by its digest; a slot whose time is over is free. When all slots that
a key may have are taken, the one whose time is over first makes room, so memory is bounded whoever asks.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from limits.storage import Storage

_SLOT: Final = struct.Struct("=16sdq")
_SLOTS: Final = 32_768
_PROBES: Final = 8


class SharedStorage(Storage):
    """Counters with an end, in a mapped file.

    :param path: the file, made where it is missing; None for one that nobody else sees.
    """

    # The library finds storages by the scheme of an address; this one is handed over as an object.
    STORAGE_SCHEME = None

    def __init__(self, path: Path | None = None, **_: Any) -> None:
        super().__init__()
        self._file = path.open("a+b") if path is not None else tempfile.TemporaryFile()  # noqa: SIM115 - kept open
        with self._locked():
            self._file.truncate(_SLOTS * _SLOT.size)
        self._table = mmap.mmap(self._file.fileno(), _SLOTS * _SLOT.size)

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """What can go wrong here."""
        return OSError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter, one that ends after ``expiry`` seconds where it is new, and return it."""
        digest = _digest(key)
        now = time.time()
        with self._locked():
            position, end, count = self._find(digest, now)
            if count == 0:
                end = now + expiry
            count += amount
            _SLOT.pack_into(self._table, position, digest, end, count)
        return count

    def get(self, key: str) -> int:
        """Return a counter."""
        with self._locked():
            return self._find(_digest(key), time.time())[2]

    def get_expiry(self, key: str) -> float:
        """Return when a counter ends, in seconds since the epoch; now where there is none."""
        now = time.time()
        with self._locked():
            _, end, count = self._find(_digest(key), now)
        return end if count else now

    def check(self) -> bool:
        """Return whether the counters can be used."""
        return not self._table.closed

    def reset(self) -> int | None:
        """Forget all counters."""
        with self._locked():
            self._table[:] = bytes(len(self._table))
        return None

    def clear(self, key: str) -> None:
        """Forget one counter."""
        digest = _digest(key)
        with self._locked():
            position, _, count = self._find(digest, time.time())
            if count:
                _SLOT.pack_into(self._table, position, bytes(16), 0.0, 0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The kernel takes the lock from a worker that ends, however it ends.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _find(self, digest: bytes, now: float) -> tuple[int, float, int]:
        """Return where a key's counter is or may be put, its end, and the counter: 0 where there is none."""
        first = int.from_bytes(digest[:4], "little")
        free, free_end = 0, float("inf")
        for probe in range(_PROBES):
            position = (first + probe) % _SLOTS * _SLOT.size
            held, end, count = _SLOT.unpack_from(self._table, position)
            if held == digest and end > now:
                return position, end, count
            if end < free_end:
                free, free_end = position, end
        return free, 0.0, 0


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).digest()
