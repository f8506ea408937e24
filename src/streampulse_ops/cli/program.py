"""The program behind ./inv: Invoke, with 2 as the exit code of wrong usage, as everywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from invoke.exceptions import Exit, ParseError
from invoke.program import Program

from streampulse import __version__

# Tasks whose one word may be left out.
OPTIONAL_WORD = ("logs", "peek", "open", "ssh", "test")


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn Invoke's complaints about the command line into one line and exit code 2."""
    try:
        yield
    except ParseError as error:
        # An option is named as it is typed, not as Invoke's object of it.
        said = re.sub(r"Flag <Argument: ([\w-]+)[^>]*>", r"--\1", str(error))
        raise Exit(f"inv: {said} See: inv --list, inv --help TASK", code=2) from None
    except ValueError as error:
        # What is not a number, where an option takes one. Python says so as int() and float() do.
        given = re.fullmatch(r"(?:invalid literal for (int)\(\).*|could not convert string to float): (.+)", str(error))
        said = f"{given[2]} is not a {'whole ' if given[1] else ''}number" if given else str(error)
        raise Exit(f"inv: an option has a value that it cannot take: {said}. See: inv --help TASK", code=2) from None


class Inv(Program):  # type: ignore[misc] # Invoke is read without its types
    """Invoke under the name that people type."""

    def parse_core(self, argv: Any) -> None:
        """Parse what stands before the first task."""
        with usage_errors():
            super().parse_core(argv)

    def parse_tasks(self) -> None:
        """Parse the tasks and what they are given."""
        words = self.core.unparsed
        if words and "--help" in words[1:]:
            # As most programs have it. Invoke would take it for the word that a task is given.
            self.args.help.value = words[0]
            words[:] = []
        with usage_errors():
            try:
                super().parse_tasks()
            except ParseError as error:
                # Invoke has no positional argument that may be left out: such tasks get an empty one. Without it Invoke
                # also calls the value of `test --changed REV` ambiguous, in an error that names no task.
                name = error.context.name if error.context else words[0]
                if name not in OPTIONAL_WORD or (error.context and not error.context.missing_positional_args):
                    raise
                after = self.core.unparsed.index(name) + 1
                self.core.unparsed.insert(after, "")
                super().parse_tasks()
        if len(self.tasks) > 1:
            # Invoke would run a surplus word that happens to be a task's name.
            raise Exit(f"inv: one task at a time: {self.tasks[1].name} would be another. See: inv --help", code=2)

    def parse_cleanup(self) -> None:
        """Answer --help and --list."""
        with usage_errors():
            super().parse_cleanup()

    def no_tasks_given(self) -> None:
        """Show the tasks rather than Invoke's own options, most of which mean nothing here."""
        self.list_tasks()
        raise Exit


def main() -> None:
    """Run what the command line asks for."""
    Inv(name="inv", binary="inv", version=__version__).run()


if __name__ == "__main__":
    main()
