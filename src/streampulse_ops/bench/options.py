"""The options of the benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streampulse.core.errors import UsageError

#: The measurements in order. Those that depend on the size of the state (a start reads the events of the last ten
#: minutes) come before the high rates and the backlog.
NAMES: Final = ("memory", "processor", "api", "start", "recovery", "latency", "catch-up", "growth", "up", "monitoring")
#: What `--peers` races against.
PEERS: Final = ("bytewax", "quix", "spark")


@dataclass(frozen=True)
class Options:
    """The options of ``inv bench``, which the help of the task explains."""

    only: tuple[str, ...] = ()
    rates: tuple[int, ...] = (300, 3_000, 10_000)
    seconds: int = 60
    backlog: int = 2_000_000
    repeats: int = 3
    days: tuple[int, ...] = (1, 7, 30)
    out: Path | None = None
    compare: Path | None = None
    keep_machine: bool = False


def positive(option: str, number: int) -> int:
    """Return a number from 1 on.

    :raises UsageError: it is smaller.
    """
    if number < 1:
        raise UsageError(f"--{option} {number}: give a whole number from 1 on")
    return number


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Parse positive whole numbers, separated by commas.

    :raises UsageError: the text has another form.
    """
    words = text.replace("_", "").split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"--{option} {text}: give whole numbers from 1 on, separated by commas")
    return tuple(int(word) for word in words)


def names(option: str, text: str, known: Sequence[str] = NAMES) -> tuple[str, ...]:
    """Parse names of measurements or peers, separated by commas; empty for all.

    :raises UsageError: one does not exist.
    """
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in words:
        if word not in known:
            raise UsageError(f"--{option} {word} is nothing that is measured. There are: {', '.join(known)}")
    return words
