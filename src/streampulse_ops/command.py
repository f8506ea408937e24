"""Running the programs of the control machine, and saying plainly what went wrong when one fails."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from streampulse.core.errors import OperatorError

# Where Debian keeps the administrator's tools; an ordinary account's PATH often leaves these out.
ADMIN_PATH = ":/usr/local/sbin:/usr/sbin:/sbin"

# Colours and the like, which Maven writes even into a pipe.
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

# What mount(8) says after the cause.
NO_CAUSE = "dmesg(1) may have more information"


class CommandError(OperatorError):
    """A program ended with a code other than 0; the text is its name and its own last words."""


def program_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with the administrator's tools on PATH and fixed English messages.

    :param extra: variables to set or replace.
    """
    merged = {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}
    merged["PATH"] = merged.get("PATH", "/usr/bin:/bin") + ADMIN_PATH
    return merged


def which(program: str) -> str | None:
    """Return the full path of a program, looked for in the administrator's folders as well."""
    return shutil.which(program, path=program_environment()["PATH"])


def run(
    arguments: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    stdin: str | None = None,
) -> str:
    """Run a program to its end and return what it printed on standard output.

    :param timeout: seconds after which it is killed.
    :raises CommandError: it is not there, ended with another code than 0, or took longer than ``timeout``.
    """
    words = [str(argument) for argument in arguments]
    try:
        done = subprocess.run(  # noqa: S603 - the one place that starts programs: always a list, never a shell
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
    if done.returncode != 0:
        raise CommandError(f"`{shlex.join(words)}` failed: {last_words(done.stderr or done.stdout, done.returncode)}")
    return done.stdout


def last_words(output: str, code: int) -> str:
    """Return the last line that says something, or the exit code when there is none."""
    plain = ESCAPE.sub("", output)
    lines = [line.strip() for line in plain.splitlines() if line.strip() and not line.lstrip().startswith(NO_CAUSE)]
    return lines[-1] if lines else f"exit code {code}"


def missing_programs(programs: Iterable[str]) -> list[str]:
    """Return those of the programs that are not installed, in the order given."""
    return [program for program in programs if which(program) is None]
