"""What Prometheus' own programs say about our rules: ``python -m streampulse.ops.promlint``, one of the linters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streampulse.errors import OperatorError
from streampulse.ops import paths, promtools
from streampulse.ops.command import program_environment

#: The exit code that says that nothing could be looked at, after the reason.
NOT_DONE: Final = 3


def commands(root: Path) -> Iterator[list[str]]:
    """Yield each command line that must end with 0.

    :param root: the checkout.
    :raises promtools.Unavailable: a program is not here and cannot be fetched.
    """
    promtool = str(promtools.find("promtool", _say))
    yield [promtool, "check", "rules", "--lint-fatal", *_files(root, "prometheus/rules/*.yml")]
    yield [promtool, "test", "rules", *_files(root, "prometheus/tests/*.yml")]


def _files(root: Path, pattern: str) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in root.glob(pattern))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Look at everything and return 0, 1 with what was found wrong, or :data:`NOT_DONE`."""
    wrong = False
    try:
        root = paths.repository()
        for command in commands(root):
            done = subprocess.run(  # noqa: S603 - lists made here, no shell
                command,
                cwd=root,
                env=program_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                wrong = True
                _say(done.stdout.rstrip())
    except promtools.Unavailable as error:
        _say(f"the rules were not looked at: {error}")
        return NOT_DONE
    except OperatorError as error:
        _say(str(error))
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
