"""The journals of all hosts as one, in the order of time."""

import fnmatch
import json
import queue
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from streampulse.core.errors import UsageError
from streampulse_ops.cli.ending import Terminated
from streampulse_ops.command import program_environment
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import ssh
from streampulse_ops.services import Service

#: journald's names of the priorities; the index is the number.
LEVELS: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
#: How long followed entries are held back, in seconds, so that an earlier entry of another host can go first.
REORDER_SECONDS: Final = 0.5
#: Fields of an entry that are asked for; journalctl adds its time and its cursor.
FIELDS: Final = "MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER"
_NO_TIME: Final = "Failed to parse timestamp"


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
        """Return the entry as it is shown: time (UTC), host, service, text; further lines are indented."""
        when = datetime.fromtimestamp(self.at / 1e6, UTC)
        first, *rest = self.text.splitlines() or [""]
        head = f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z {self.host} {self.service}: {first}"
        return "\n".join([head, *(f"    {each}" for each in rest)])


def writer(entry: Mapping[str, Any], listed: Iterable[Service]) -> str:
    """Return the service that an entry is about, or another program that wrote it.

    :param listed: the services that are shown.
    """
    # systemd's own messages about a unit name it in UNIT.
    for unit in (entry.get("UNIT"), entry.get("_SYSTEMD_UNIT")):
        for service in listed:
            if any(fnmatch.fnmatchcase(str(unit), pattern) for pattern in service.units):
                return service.name
    return str(entry.get("SYSLOG_IDENTIFIER") or entry.get("_SYSTEMD_UNIT") or "?")


class Journals:
    """The journals of several hosts.

    :param asked: the hosts, each with the units that are asked for.
    :param listed: the services that are shown.
    :param limits: further options of journalctl.
    :param show: prints an entry that is followed.
    """

    def __init__(
        self,
        session: Session,
        asked: Sequence[tuple[Host, Sequence[str]]],
        listed: Sequence[Service],
        limits: Sequence[str],
        show: Callable[[Entry], None],
    ) -> None:
        """Keep the parameters; no host is asked yet."""
        self.session = session
        self.asked = asked
        self.listed = listed
        self.limits = limits
        self.show = show
        #: The hosts whose entries are incomplete, with the reasons.
        self.failures: list[str] = []
        #: The last line of each host that is not an entry.
        self._complaints: dict[str, str] = {}

    def newest(self, lines: int) -> tuple[list[Entry], dict[str, str]]:
        """Return the newest entries of all hosts in the order of time, and the cursor of each host's last entry.

        :raises UsageError: ``--since`` is not a time.
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
        # The sort is stable: entries of the same time stay in their host's order.
        return sorted(found, key=lambda entry: entry.at)[-lines:] if lines else [], cursors

    def _ask(self, host: Host, units: Sequence[str], lines: int) -> list[Entry]:
        # Without --reverse, systemd 252 takes the oldest lines after --since.
        with self._start(host, units, [f"--lines={lines}", "--reverse", *self.limits], live=False) as process:
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
        return [entry for line in reversed(output.splitlines()) if (entry := read(line, host.name, self.listed))]

    def follow(self, cursors: Mapping[str, str], begun: float) -> None:
        """Print new entries until Ctrl-C or until every host's journal has ended.

        :param cursors: the entry to go on after, by host.
        :param begun: the time to go on from on other hosts, in seconds since the epoch.
        """
        arrived: queue.SimpleQueue[tuple[float, Entry | None]] = queue.SimpleQueue()
        processes = []
        for host, units in self.asked:
            cursor = cursors.get(host.name)
            where = f"--after-cursor={cursor}" if cursor else f"--since=@{begun:.3f}"
            # journalctl takes one beginning only, and new entries are later than --since anyway.
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
            # The terminal sends Ctrl-C to ssh as well; a signal reaches this process only.
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
                self.show(entry)

    def _read(
        self, process: subprocess.Popen[bytes], host: str, arrived: queue.SimpleQueue[tuple[float, Entry | None]]
    ) -> None:
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        for line in process.stdout:
            entry = read(line, host, self.listed)
            if entry is not None:
                # An entry after a complaint shows that the complaint did no harm.
                self._complaints.pop(host, None)
                arrived.put((time.monotonic(), entry))
            elif line.strip():
                # On a remote terminal, errors come among the entries.
                self._complaints[host] = printable(line.decode(errors="replace").strip())
        arrived.put((time.monotonic(), None))

    def _start(
        self, host: Host, units: Sequence[str], options: Sequence[str], *, live: bool
    ) -> subprocess.Popen[bytes]:
        # On a terminal, journalctl colours even its JSON. In UTC, --since is the same instant on every host.
        words = [
            "env", "SYSTEMD_COLORS=0", "TZ=UTC", "journalctl", "--no-pager", "--quiet", "--all", "--output=json",
            f"--output-fields={FIELDS}",
        ]  # fmt: skip
        words += [*options, *(f"--unit={unit}" for unit in units)]
        login = ssh.login(self.session.environment, host)
        password = "" if self.session.ours else ssh.reached(self.session.environment, host).sudo_password
        # With a remote terminal, journalctl ends together with this process. A terminal could print a typed password.
        terminal = ["-tt"] if live and not password else []
        process = subprocess.Popen(  # noqa: S603 - a list made here; ssh hands the quoted words to the other's shell
            [*login.command("-q", *terminal), shlex.join(login.as_root(words, typed=bool(password)))],
            env=program_environment(),
            stdin=subprocess.PIPE if password else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if live else subprocess.PIPE,
        )
        if password and process.stdin:
            process.stdin.write(f"{password}\n".encode())
            process.stdin.flush()
        return process


def due(
    held: Sequence[tuple[float, Entry]], now: float, window: float
) -> tuple[list[Entry], list[tuple[float, Entry]]]:
    """Return the entries to print, in the order of time, and the rest.

    Entries are printed when they have waited long enough, together with all earlier ones.

    :param held: entries with the time of their arrival, on the clock of ``now``.
    :param window: how long an entry waits for earlier ones, in seconds.
    """
    last = max((entry.at for arrival, entry in held if arrival <= now - window), default=None)
    if last is None:
        return [], list(held)
    ready = sorted((entry for _, entry in held if entry.at <= last), key=lambda entry: entry.at)
    return ready, [(arrival, entry) for arrival, entry in held if entry.at > last]


def read(line: bytes, host: str, listed: Iterable[Service]) -> Entry | None:
    """Return the entry of a line of journalctl's JSON, None when the line is not an entry."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(line)
        return Entry(
            int(found["__REALTIME_TIMESTAMP"]),
            host,
            writer(found, listed),
            min(int(found.get("PRIORITY", 6)), len(LEVELS) - 1),
            printable(found.get("MESSAGE")),
            str(found["__CURSOR"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def printable(message: Any) -> str:
    """Return a message without control characters. journalctl gives a message that is not UTF-8 as a list of bytes."""
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
