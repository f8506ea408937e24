"""A substitute for the control machine's programs: answers come from a table, and calls are recorded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streampulse_ops.command import CommandError

Answer = str | CommandError | Callable[[list[str]], str]


class FakeCommands:
    """Stands in for streampulse_ops.command.run."""

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.answers = answers or {}
        self.ran: list[str] = []

    def __call__(self, arguments: Sequence[str | Path], **_more: Any) -> str:
        words = [str(argument) for argument in arguments]
        line = " ".join(words)
        self.ran.append(line)
        best = max((start for start in self.answers if line.startswith(start)), key=len, default=None)
        answer = self.answers[best] if best is not None else ""
        if isinstance(answer, CommandError):
            raise answer
        return answer(words) if callable(answer) else answer

    def changes(self) -> list[str]:
        """Return what was run that changes anything."""
        looking = ("-json", " -C ", "netns pids")
        return [line for line in self.ran if not any(word in line for word in looking)]
