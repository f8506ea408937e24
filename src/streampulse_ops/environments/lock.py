"""The lock of an environment, with its holder, the holder's task, and the time since when it is held."""

import contextlib
import fcntl
import getpass
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from streampulse.core.errors import OperatorError

_HELD: set[int] = set()


@contextlib.contextmanager
def held(file: Path, task: str) -> Iterator[None]:
    """Hold the lock while the body runs.

    The kernel releases the lock when this process and all processes that inherited it (``descriptors``) have ended, so
    no stale lock can stay.

    :param task: the task, for the message to others.
    :raises OperatorError: another process holds the lock; the text has its user, its task and the time.
    """
    with _taken(file) as handle:
        handle.truncate(0)
        json.dump(holder(task), handle)
        handle.flush()
        _HELD.add(handle.fileno())
        try:
            yield
        finally:
            _HELD.discard(handle.fileno())
            handle.truncate(0)


def descriptors() -> tuple[int, ...]:
    """Return the descriptors of the locks that this process holds.

    A program that inherits them holds the locks as well: when this process is killed, until that program has ended too.
    """
    return tuple(_HELD)


def discard(file: Path) -> None:
    """Remove the lock's file, and its folder when that has become empty. Only the holder of the lock may call it."""
    file.unlink(missing_ok=True)
    # A folder that is not empty, or that root made, stays.
    with contextlib.suppress(OSError):
        file.parent.rmdir()


def _taken(file: Path) -> TextIO:
    """Open the file and lock it."""
    while True:
        handle = _opened(file)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file after it was opened here; then this lock protects nothing.
            if _is(file, handle):
                return handle
        except BlockingIOError:
            handle.close()
            raise OperatorError(described(file.parent.name, file.read_text(encoding="utf-8"))) from None
        handle.close()


def _is(file: Path, handle: TextIO) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False


def _opened(file: Path) -> TextIO:
    try:
        handle = file.open("a+", encoding="utf-8")
    except PermissionError:
        owner = file.parent.owner()
        raise OperatorError(
            f"the environment {file.parent.name} belongs to {owner}, who made it ({file.parent}): run the task as "
            f"{owner}"
        ) from None
    invoker = os.environ.get("SUDO_UID")
    if invoker and os.geteuid() == 0 and os.fstat(handle.fileno()).st_uid == 0:
        # Made through sudo: the account that called sudo must be able to lock it without sudo.
        os.fchown(handle.fileno(), int(invoker), -1)
    return handle


def holder(task: str) -> dict[str, str | int]:
    """Return what a lock says about this process, for :func:`described`."""
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    return {"pid": os.getpid(), "user": user, "machine": socket.gethostname(), "task": task, "since": since}


def described(name: str, text: str) -> str:
    """Return the message of an environment's lock that another process holds.

    :param text: the lock's content.
    """
    try:
        who = json.loads(text)
        found = (
            f"{who['user']} on {who['machine']} holds it with `{who['task']}` (pid {who['pid']}) since {who['since']}"
        )
    except (ValueError, KeyError):
        found = "another process has just taken it"
    return f"{name} is locked: {found}. Wait for it to end, or look: inv status --env {name}"
