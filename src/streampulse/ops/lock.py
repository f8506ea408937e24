"""One lock for each environment: who holds it, for which task, since when."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from streampulse.errors import OperatorError


@contextlib.contextmanager
def held(file: Path, task: str) -> Iterator[None]:
    """Hold the lock while the body runs.

    The kernel lets go of it when the process ends, however it ends, so that a lock is never left behind.

    :param task: what the holder is doing, for the message that others get.
    :raises OperatorError: somebody else holds it; the text says who, doing what, since when.
    """
    with _opened(file) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(_holder(handle.name)) from None
        handle.truncate(0)
        json.dump({"pid": os.getpid(), "user": _user(), "task": task, "since": _now()}, handle)
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


def discard(file: Path) -> None:
    """Remove the lock's file, and its folder when that has become empty."""
    file.unlink(missing_ok=True)
    # A folder that still has something in it, or that root made for us, stays.
    with contextlib.suppress(OSError):
        file.parent.rmdir()


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
        # Made through sudo: the one who called it takes the lock without, the next time.
        os.fchown(handle.fileno(), int(invoker), -1)
    return handle


def _user() -> str:
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _holder(file: str) -> str:
    try:
        who = json.loads(Path(file).read_text(encoding="utf-8"))
        holder = f"{who['user']} holds it with `{who['task']}` (pid {who['pid']}) since {who['since']}"
    except (OSError, ValueError, KeyError):
        holder = "another process has just taken it"
    name = Path(file).parent.name
    return f"{name} is locked: {holder}. Wait for it to end, or look: inv status --env {name}"
