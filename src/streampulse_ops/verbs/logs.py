"""The journals of all hosts as one, in the order of time: what is there, and what comes."""

from __future__ import annotations

import fnmatch
import json
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import services
from streampulse_ops.cli.ending import Terminated
from streampulse_ops.command import program_environment
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import remote
from streampulse_ops.services import Service

#: As journald has them: the place is the number.
LEVELS: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
#: What people write for these.
ALSO: Final = {"emergency": "emerg", "critical": "crit", "fatal": "crit", "error": "err", "warn": "warning"}
STYLES: Final = {0: "bold red", 1: "bold red", 2: "bold red", 3: "red", 4: "yellow", 7: "dim"}
DEFAULT_LINES: Final = 100
#: What comes is held back for so long, in seconds, so that what another host sent a little later can go first.
REORDER_SECONDS: Final = 0.5
#: What of an entry is asked for; its time and its cursor come by themselves.
FIELDS: Final = "MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER"
_DURATION: Final = re.compile(r"\s*(?:\d+\s*(?:s|sec|m|min|minutes?|h|hours?|d|days?|w|weeks?)\s*)+")
_NO_TIME: Final = "Failed to parse timestamp"


@dataclass(frozen=True)
class Wish:
    """What is to be shown.

    :param lines: the newest so many, over all hosts and services.
    :param since: nothing older, as systemd.time(7) has it; empty for no limit.
    :param level: nothing of less weight; empty for all.
    """

    follow: bool = False
    lines: int = DEFAULT_LINES
    since: str = ""
    level: str = ""

    def words(self) -> list[str]:
        """Return the options of journalctl that limit what it shows.

        :raises UsageError: there is no such level.
        """
        chosen = []
        if self.since:
            # What is a length of time is meant as that long ago; everything else is systemd's to read.
            chosen.append(f"--since={'-' if _DURATION.fullmatch(self.since) else ''}{self.since.strip()}")
        if self.level:
            level = ALSO.get(self.level.lower(), self.level.lower())
            if level not in LEVELS:
                raise UsageError(f"{self.level} is not a level. There are: {', '.join(reversed(LEVELS))}")
            chosen.append(f"--priority={level}")
        return chosen


@dataclass(frozen=True)
class Entry:
    """One entry of a journal. ``at`` is in microseconds since the epoch, by its host's clock."""

    at: int
    host: str
    service: str
    level: int
    text: str
    cursor: str

    def line(self) -> str:
        """Return it as it is shown: time (UTC), host, service, text; what follows a line end is set in."""
        when = datetime.fromtimestamp(self.at / 1e6, UTC)
        first, *rest = self.text.splitlines() or [""]
        head = f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z {self.host} {self.service}: {first}"
        return "\n".join([head, *(f"    {each}" for each in rest)])


class Names:
    """What people call the services of units.

    :param listed: the services that are shown.
    """

    def __init__(self, listed: Iterable[Service]) -> None:
        """Note the units."""
        self._units = [(service.unit, service.name) for service in listed]

    def of(self, entry: Mapping[str, Any]) -> str:
        """Return the service that an entry is about, or who else wrote it."""
        # What systemd itself says of a unit has that in a field of its own.
        for unit in (entry.get("UNIT"), entry.get("_SYSTEMD_UNIT")):
            for pattern, name in self._units:
                if unit and fnmatch.fnmatchcase(str(unit), pattern):
                    return name
        return str(entry.get("SYSLOG_IDENTIFIER") or entry.get("_SYSTEMD_UNIT") or "?")


def show(session: Session, name: str, wish: Wish) -> str | None:
    """Print the journal of a service, or of all, go on with what comes where that is wished for, and say what is cut.

    :param name: the service; empty for all.
    :raises UsageError: there is no such level, no such time, or no such number of lines.
    :raises OperatorError: no such service, or a host cannot be asked.
    """
    if not 0 <= wish.lines < 2**31:  # what journalctl takes
        raise UsageError(f"{wish.lines} lines cannot be shown: inv logs {name or 'job'} --lines {DEFAULT_LINES}")
    limits = wish.words()
    wanted = [services.named(name)] if name else list(services.all_services())
    asked = [
        (host, units)
        for host in session.environment.hosts
        if (units := [service.unit for service in wanted if services.runs(host, service)])
    ]
    if not asked:
        raise OperatorError(f"no host of {session.name} runs {name}: add one to {session.environment.inventory}")
    up = [(host, units) for host, units in asked if session.provider.running(host)]
    if not up:
        session.require_running(asked[0][0])
    missing = [f"{host.name} is not running" for host, units in asked if (host, units) not in up]
    journal = Journals(session, up, Names(wanted), limits)
    begun = time.time()
    entries, cursors = journal.newest(wish.lines)
    for entry in entries:
        _print(session, entry)
    try:
        if wish.follow:
            journal.follow(cursors, begun)
    except KeyboardInterrupt:
        return None  # the ordinary end of it
    missing += journal.failures
    if missing:
        raise OperatorError(f"not all of it: {'; '.join(missing)}. Is it up? inv status --env {session.name}")
    cut = wish.since and len(entries) == wish.lines
    return f"the newest {wish.lines} lines; more of them: --lines {10 * max(wish.lines, 1)}" if cut else None


class Journals:
    """The journals of several hosts.

    :param asked: the hosts, each with the units that are asked for.
    :param limits: further options of journalctl.
    """

    def __init__(
        self, session: Session, asked: Sequence[tuple[Host, Sequence[str]]], names: Names, limits: Sequence[str]
    ) -> None:
        """Note what is wanted; nobody is asked yet."""
        self.session = session
        self.asked = asked
        self.names = names
        self.limits = limits
        #: What could not be shown, and why.
        self.failures: list[str] = []
        #: The last line of each host that is no entry.
        self._complaints: dict[str, str] = {}

    def newest(self, lines: int) -> tuple[list[Entry], dict[str, str]]:
        """Return the newest entries of all hosts in the order of time, and of each host where its journal ended.

        :raises UsageError: the time since when is none.
        """
        found: list[Entry] = []
        cursors: dict[str, str] = {}
        if lines:
            with ThreadPoolExecutor(len(self.asked)) as pool:
                answers = list(pool.map(lambda one: self._ask(one[0], one[1], lines), self.asked))
            for (host, _), entries in zip(self.asked, answers, strict=True):
                found += entries
                if entries:
                    cursors[host.name] = entries[-1].cursor
        # What has the same time stays in each host's own order.
        return sorted(found, key=lambda entry: entry.at)[-lines:] if lines else [], cursors

    def _ask(self, host: Host, units: Sequence[str], lines: int) -> list[Entry]:
        with self._start(host, units, [f"--lines={lines}", *self.limits], live=False) as process:
            output, errors = process.communicate()
        said = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        if process.returncode != 0:
            why = said[-1] if said else f"ssh ended with {process.returncode}"
            if _NO_TIME in why:
                raise UsageError(
                    f"{why.partition(':')[2].strip()} is no time: write --since 10m, 'today', '09:30' or "
                    "'2026-01-31 09:30'"
                )
            self.failures.append(f"{host.name} did not show its journal ({why})")
        return [entry for line in output.splitlines() if (entry := read(line, host.name, self.names))]

    def follow(self, cursors: Mapping[str, str], begun: float) -> None:
        """Print what comes, until Ctrl-C or until no host says anything any more.

        :param cursors: where to go on, by host.
        :param begun: where to go on elsewhere, in seconds since the epoch.
        """
        arrived: queue.SimpleQueue[tuple[float, Entry | None]] = queue.SimpleQueue()
        processes = []
        for host, units in self.asked:
            cursor = cursors.get(host.name)
            where = f"--after-cursor={cursor}" if cursor else f"--since=@{begun:.3f}"
            # Since when, was asked of what there was: what comes is later, and journalctl takes one beginning only.
            limits = [limit for limit in self.limits if not limit.startswith("--since=")]
            processes.append(
                (host.name, self._start(host, units, ["--follow", "--no-tail", where, *limits], live=True))
            )
        readers = [
            threading.Thread(target=self._read, args=(process, name, arrived), daemon=True)
            for name, process in processes
        ]
        try:
            for reader in readers:
                reader.start()
            self._merge(arrived, len(readers), REORDER_SECONDS if len(readers) > 1 else 0.0)
        except KeyboardInterrupt as error:
            # Of Ctrl-C ssh has heard from the terminal, of a signal to us it has not.
            if isinstance(error, Terminated):
                for _, process in processes:
                    process.terminate()
            raise
        finally:
            for _, process in processes:
                process.wait()
        self.failures += [
            f"{name} says no more ({self._complaints.get(name) or f'ssh ended with {process.returncode}'})"
            for name, process in processes
        ]

    def _merge(self, arrived: queue.SimpleQueue[tuple[float, Entry | None]], readers: int, window: float) -> None:
        held: list[tuple[float, Entry]] = []
        while readers or held:
            try:
                at, entry = arrived.get(timeout=window / 2 if held else None)
                if entry is None:
                    readers -= 1
                else:
                    held.append((at, entry))
            except queue.Empty:
                pass
            ready, held = due(held, time.monotonic(), window if readers else 0.0)
            for entry in ready:
                _print(self.session, entry)

    def _read(
        self, process: subprocess.Popen[bytes], host: str, arrived: queue.SimpleQueue[tuple[float, Entry | None]]
    ) -> None:
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        for line in process.stdout:
            entry = read(line, host, self.names)
            if entry is not None:
                # What was complained of before did no harm.
                self._complaints.pop(host, None)
                arrived.put((time.monotonic(), entry))
            elif line.strip():
                # A terminal at the other end has no errors of its own: a complaint comes among the entries.
                self._complaints[host] = printable(line.decode(errors="replace").strip())
        arrived.put((time.monotonic(), None))

    def _start(
        self, host: Host, units: Sequence[str], options: Sequence[str], *, live: bool
    ) -> subprocess.Popen[bytes]:
        # On a terminal, journalctl colours even its JSON.
        words = [
            "env",
            "SYSTEMD_COLORS=0",
            "journalctl",
            "--no-pager",
            "--quiet",
            "--all",
            "--output=json",
            f"--output-fields={FIELDS}",
        ]
        words += [*options, *(f"--unit={unit}" for unit in units)]
        login = remote.login(self.session.environment, host)
        words = words if login.user == "root" else ["sudo", "-n", *words]
        # What is followed gets a terminal at the other end, so that journalctl ends when we do.
        return subprocess.Popen(  # noqa: S603 - a list made here; ssh hands the quoted words to the other side's shell
            [*login.command("-q", *(["-tt"] if live else [])), shlex.join(words)],
            env=program_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if live else subprocess.PIPE,
        )


def due(
    held: Sequence[tuple[float, Entry]], now: float, window: float
) -> tuple[list[Entry], list[tuple[float, Entry]]]:
    """Return the entries that have waited long enough and what goes before them, in the order of time, and the rest.

    :param held: entries with the time of their arrival, on the clock of ``now``.
    :param window: how long an entry waits for earlier ones, in seconds.
    """
    last = max((entry.at for arrival, entry in held if arrival <= now - window), default=None)
    if last is None:
        return [], list(held)
    ready = sorted((entry for _, entry in held if entry.at <= last), key=lambda entry: entry.at)
    return ready, [(arrival, entry) for arrival, entry in held if entry.at > last]


def read(line: bytes, host: str, names: Names) -> Entry | None:
    """Return what a line of journalctl's JSON says, None where it is none."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(line)
        return Entry(
            int(found["__REALTIME_TIMESTAMP"]),
            host,
            names.of(found),
            min(int(found.get("PRIORITY", 6)), len(LEVELS) - 1),
            printable(found.get("MESSAGE")),
            str(found["__CURSOR"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def printable(message: Any) -> str:
    """Return a message so that nothing in it does harm to a terminal. What is not UTF-8 comes as a list of bytes."""
    if isinstance(message, list):
        message = (
            bytes(message).decode(errors="replace")
            if all(isinstance(each, int) for each in message)
            else "\n".join(str(each) for each in message)
        )
    text = "" if message is None else str(message)
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode("ascii")
        for each in text.rstrip("\n")
    )


def _print(session: Session, entry: Entry) -> None:
    session.screen.console.print(entry.line(), style=STYLES.get(entry.level), soft_wrap=True)
    if not session.screen.console.is_terminal:
        sys.stdout.flush()
