"""The program behind ./inv: Invoke, with exit code 2 for wrong usage."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from invoke.exceptions import Exit, ParseError
from invoke.program import Program

from streampulse import __version__
from streampulse_ops.cli.ownership import set_umask


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
        # An option that takes a number got something else; the text is Python's, of int() or float().
        given = re.fullmatch(r"(?:invalid literal for (int)\(\).*|could not convert string to float): (.+)", str(error))
        said = f"{given[2]} is not a {'whole ' if given[1] else ''}number" if given else str(error)
        raise Exit(f"inv: an option has a value that it cannot take: {said}. See: inv --help TASK", code=2) from None


class Inv(Program):  # type: ignore[misc] # Invoke is read without its types
    """Invoke under the name that people type."""

    def parse_core(self, argv: Any) -> None:
        """Parse the options before the first task."""
        with usage_errors():
            super().parse_core(argv)

    def parse_tasks(self) -> None:
        """Parse the task and its options."""
        words = self.core.unparsed
        if words and "--help" in words[1:]:
            # `inv TASK WORD --help`: Invoke would read --help as the value of the positional argument.
            self.args.help.value = words[0]
            words[:] = []
        with usage_errors():
            try:
                super().parse_tasks()
            except ParseError as error:
                # Invoke has no positional argument that may be left out: those whose default is None get an empty one.
                # Without it Invoke also calls the value of `test --changed REV` ambiguous, in an error without a task.
                name = error.context.name if error.context else words[0]
                left = error.context.missing_positional_args if error.context else [None]
                if not left or not all(self._may_be_left_out(name, each) for each in left):
                    raise
                is_first = error.context is None or len(left) == len(error.context.positional_args)
                at = words.index(name) + 1 if is_first else len(words)
                words[at:at] = [""] * len(left)
                super().parse_tasks()
        if len(self.tasks) > 1:
            # Invoke would run a surplus word that is a task's name.
            raise Exit(f"inv: one task at a time: {self.tasks[1].name} would be another. See: inv --help", code=2)

    def _may_be_left_out(self, name: str, argument: Any) -> bool:
        """Return whether a task's positional argument has the default None; ``argument`` None: the first one."""
        task = self.collection[name]
        if argument is None and not task.positional:
            return False
        parameter = (argument.attr_name or argument.name) if argument else task.positional[0]
        return inspect.signature(task.body).parameters[parameter].default is None

    def parse_cleanup(self) -> None:
        """Answer --help and --list."""
        with usage_errors():
            super().parse_cleanup()

    def no_tasks_given(self) -> None:
        """Show the tasks instead of Invoke's own options."""
        self.list_tasks()
        raise Exit


def main() -> None:
    """Run the task of the command line."""
    set_umask()
    Inv(name="inv", binary="inv", version=__version__).run()


if __name__ == "__main__":
    main()
