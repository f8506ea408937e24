"""Who runs a task: owners and modes of the files that it makes, and the message for a file that cannot be used."""

import errno
import getpass
import os
import shlex
import socket
from pathlib import Path

from streampulse_ops import paths

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def set_umask() -> None:
    """Make new files readable for all, whatever the caller's umask is.

    Machines and hosts get files with the modes of this machine, and services that are not root read them. Files with
    secrets are made with modes of their own.
    """
    os.umask(0o022)


def give_to_invoker(*files: Path) -> None:
    """Give files to the account that called sudo. Does nothing without sudo."""
    owner, group = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if os.geteuid() != 0 or not (owner and group):
        return
    for file in files:
        os.chown(file, int(owner), int(group))


def author() -> str:
    """Return who runs a task: the account behind sudo, and this machine."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"


def explain(error: OSError) -> str:
    """Return one line for an error of the operating system: the path, the cause, and the fix."""
    cause = error.strerror or str(error) or type(error).__name__
    if error.filename is None and error.errno in NO_ROOM:
        return f"{cause}: make room where df -h shows 100 %; TMPDIR=FOLDER names another folder than /tmp"
    if error.filename is None:
        return f"{cause}: try again, or look at this machine's own log (journalctl -e)"
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else Path(str(error.filename))
    quoted = shlex.quote(str(path))
    if error.errno in NO_ROOM:
        return f"{path}: {cause}: make room there, df -h {shlex.quote(str(_there(path)))}"
    if error.errno == errno.EROFS:
        return f"{path}: {cause}: mount for writing what `findmnt --target {shlex.quote(str(_there(path)))}` shows"
    if isinstance(error, PermissionError):
        there = _there(path)
        owner = _owner(there)
        # chown is no advice for a folder that other programs use.
        other = ""
        if any("streampulse" in part for part in there.parts):
            other = f", or sudo chown -R $(id -u) {shlex.quote(str(there))}"
        elif path.is_relative_to(paths.state_home()):
            other = ", or name another folder (XDG_STATE_HOME)"
        return f"{path}: {cause}; {there} belongs to {owner}: run the task as {owner}{other}"
    return f"{path}: {cause}: look at it with ls -ld {quoted}, put it right, and try again"


def _there(path: Path) -> Path:
    """Return the path, or the nearest folder above it that this process can see."""
    for candidate in (path, *path.parents):
        try:
            candidate.lstat()
        except OSError:
            continue
        return candidate
    return Path("/")


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (OSError, KeyError):
        return "somebody else"
