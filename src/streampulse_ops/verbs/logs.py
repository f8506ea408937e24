"""``inv logs``: the journal of a service, or of all services of all hosts in the order of time."""

import re
import sys
import time
from dataclasses import dataclass
from typing import Final

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import services
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.journal import LEVELS, Entry, Journals

#: Other names that people write for the levels.
ALSO: Final = {"emergency": "emerg", "critical": "crit", "fatal": "crit", "error": "err", "warn": "warning"}
STYLES: Final = {0: "bold red", 1: "bold red", 2: "bold red", 3: "red", 4: "yellow", 7: "dim"}
DEFAULT_LINES: Final = 100
#: A time as Entry.line() prints it.
_PRINTED: Final = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d(?:\.\d+)?)Z")
_DURATION: Final = re.compile(r"\s*(?:\d+\s*(?:s|sec|m|min|minutes?|h|hours?|d|days?|w|weeks?)\s*)+")


@dataclass(frozen=True)
class Wish:
    """The options of the task.

    :param lines: the newest so many, over all hosts and services.
    :param since: the oldest time, as in systemd.time(7), in UTC; empty for no limit.
    :param level: the lowest level; empty for all.
    """

    follow: bool = False
    lines: int = DEFAULT_LINES
    since: str = ""
    level: str = ""

    def words(self) -> list[str]:
        """Return the limiting options of journalctl.

        :raises UsageError: there is no such level.
        """
        chosen = []
        if self.since:
            # A duration means that long ago; a time that `inv logs` printed is written as systemd 252 reads it. All
            # other forms are systemd's.
            since = _PRINTED.sub(r"\1 \2 UTC", self.since.strip())
            chosen.append(f"--since={'-' if _DURATION.fullmatch(since) else ''}{since}")
        if self.level:
            level = ALSO.get(self.level.lower(), self.level.lower())
            if level not in LEVELS:
                raise UsageError(f"{self.level} is not a level. There are: {', '.join(reversed(LEVELS))}")
            chosen.append(f"--priority={level}")
        return chosen


def show(session: Session, name: str, wish: Wish) -> str | None:
    """Print the journal of a service, or of all, follow it with ``follow``, and return a hint when lines are cut.

    :param name: the service; empty for all.
    :raises UsageError: the level, the time or the number of lines is not allowed.
    :raises OperatorError: there is no such service, or a host cannot be asked.
    """
    if not 0 <= wish.lines < 2**31:  # journalctl's limits
        raise UsageError(f"{wish.lines} lines cannot be shown: inv logs {name or 'job'} --lines {DEFAULT_LINES}")
    limits = wish.words()
    wanted = [services.named(name)] if name else list(services.all_services())
    asked = [
        (host, units)
        for host in session.environment.hosts
        if (
            units := [
                unit
                for service in wanted
                if host in services.hosts_of(session.environment, service)
                for unit in service.units
            ]
        )
    ]
    if not asked:
        raise OperatorError(f"no host of {session.name} runs {name}: add one to {session.environment.inventory}")
    up, missing = [], []
    for host, units in asked:
        try:
            session.require_running(host)
            up.append((host, units))
        except OperatorError as error:  # the other hosts are shown all the same
            missing.append(str(error))
    if not up:
        raise OperatorError(missing[0])
    journal = Journals(session, up, wanted, limits, lambda entry: _print(session, entry))
    begun = time.time()
    entries, cursors = journal.newest(wish.lines)
    for entry in entries:
        _print(session, entry)
    try:
        if wish.follow:
            journal.follow(cursors, begun)
    except KeyboardInterrupt:
        return None  # the usual way to end it
    missing += journal.failures
    if missing:
        raise OperatorError(f"not all of it: {'; '.join(missing)}. Is it up? inv status --env {session.name}")
    cut = wish.since and len(entries) == wish.lines
    return f"the newest {wish.lines} lines; more of them: --lines {10 * max(wish.lines, 1)}" if cut else None


def _print(session: Session, entry: Entry) -> None:
    session.screen.console.print(entry.line(), style=STYLES.get(entry.level), soft_wrap=True)
    if not session.screen.console.is_terminal:
        sys.stdout.flush()
