"""Run programs on the control machine, with one-line errors."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from streampulse.core.errors import OperatorError

# Debian's administrator tools are here; an ordinary account's PATH often lacks these folders.
ADMIN_PATH = ":/usr/local/sbin:/usr/sbin:/sbin"

# Terminal escapes, which Maven writes even into a pipe.
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

# mount(8) appends this after the cause.
NO_CAUSE = "dmesg(1) may have more information"


class CommandError(OperatorError):
    """A program ended with a code other than 0; the text is its name and its last output line."""


def program_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with the administrator's tools on PATH and fixed English messages.

    :param extra: variables to set or replace.
    """
    merged = {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}
    merged["PATH"] = merged.get("PATH", "/usr/bin:/bin") + ADMIN_PATH
    return merged


def which(program: str) -> str | None:
    """Return the full path of a program, also from the administrator's folders."""
    return shutil.which(program, path=program_environment()["PATH"])


def ended(
    arguments: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its exit code, its output and its errors.

    :param timeout: seconds after which it is killed.
    :raises CommandError: it is missing, or took longer than ``timeout``.
    """
    words = [str(argument) for argument in arguments]
    try:
        return subprocess.run(  # noqa: S603 - always a list, never a shell
            words,
            cwd=cwd,
            env=program_environment(environment),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise CommandError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"`{shlex.join(words)}` did not end within {timeout:.0f} s") from None


def run(
    arguments: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    stdin: str | None = None,
) -> str:
    """Run a program as :func:`ended` does and return its standard output.

    :raises CommandError: as :func:`ended`, or it ended with a code other than 0.
    """
    done = ended(arguments, cwd=cwd, environment=environment, timeout=timeout, stdin=stdin)
    if done.returncode != 0:
        said = last_words(done.stderr or done.stdout, done.returncode)
        raise CommandError(f"`{shlex.join(done.args)}` failed: {said}")
    return done.stdout


def last_words(output: str, code: int) -> str:
    """Return the last line with content, or the exit code if there is none."""
    plain = ESCAPE.sub("", output)
    lines = [line.strip() for line in plain.splitlines() if line.strip() and not line.lstrip().startswith(NO_CAUSE)]
    return lines[-1] if lines else f"exit code {code}"


def commit(root: Path, *others: str) -> str:
    """Return the commit of a checkout, and whether it has changes.

    :param others: files whose changes do not count.
    """
    try:
        changed = run(["git", "status", "--porcelain", "--", ".", *(f":!{file}" for file in others)], cwd=root)
        found = run(["git", "rev-parse", "--short", "HEAD"], cwd=root).strip()
    except CommandError:
        return "unknown"
    return found + (" with changes" if changed.strip() else "")
