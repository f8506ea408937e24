"""``inv support-bundle``: an archive for a colleague, without secrets and without names of hosts; and doctor on it."""

import dataclasses
import ipaddress
import json
import re
import socket
import tarfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from streampulse.core.errors import IncompleteError, OperatorError
from streampulse.host.slo import silence
from streampulse_ops import paths
from streampulse_ops.cli.console import Screen
from streampulse_ops.cli.ownership import give_to_invoker
from streampulse_ops.command import CommandError, last_words, run
from streampulse_ops.environments import inventory, masking
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command, monitoring, ssh
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.monitoring import findings as catalogue
from streampulse_ops.monitoring.findings import Finding
from streampulse_ops.verbs import doctor, sql, status

FORMAT: Final = 1
MANIFEST, DOCTOR = "manifest.json", "doctor.json"
#: Seconds for one part of one host, and the newest bytes of a journal that are kept.
PART_SECONDS: Final = 60.0
JOURNAL_BYTES: Final = 16 * 2**20
#: A larger file of an archive is not read.
LARGEST_BYTES: Final = 64 * 2**20
#: What PostgreSQL's reading role writes as CSV.
TABLES: Final = {
    "ledger.csv": "COPY (SELECT * FROM batch_ledger ORDER BY seq DESC LIMIT 200) TO STDOUT WITH (FORMAT csv, HEADER)",
    "releases.csv": "COPY (SELECT * FROM releases) TO STDOUT WITH (FORMAT csv, HEADER)",
}
#: Shell commands that make the files of a host; ``$1`` is how far back they go, in seconds. Receivers' addresses, keys
#: and passwords of web pages are in files that no command reads.
ON_HOST: Final = {
    "journal.log": f'journalctl --quiet --no-pager --utc --output=short-iso --since="-$1s" | tail -c {JOURNAL_BYTES}',
    "configuration.txt": (
        "find /etc/streampulse /etc/systemd/system /etc/postgresql -type f -size -256k "
        r"\( -path '/etc/streampulse/*' -o -path '*streampulse*' \) "
        r"! -name 'alertmanager*' ! -name '*web.yml' ! -name '*.pem' ! -name '*key*' -exec tail -v -n +1 {} +"
    ),
    "system.txt": (
        "uname -a; cat /etc/os-release; uptime; free -m; df -h; df -i; systemctl list-units --failed --no-pager; "
        "dpkg-query --show"
    ),
}
_ADDRESS: Final = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)")


def make(session: Session, since: str, dry_run: bool) -> str:
    """Collect the archive into the working directory and return the closing words.

    :param since: how far back journals and metrics go.
    :raises UsageError: ``since`` is not a duration.
    :raises OperatorError: the vault cannot be opened, or a secret would be in the archive.
    :raises IncompleteError: the archive lacks a part; the text says which, and why.
    """
    seconds = silence.seconds_of(since, "--since")
    environment = session.environment
    if dry_run:
        for name in (DOCTOR, "versions.json", "metrics.json", *TABLES, "inventory.yml"):
            session.screen.line(f"  {name}")
        for host in environment.hosts:
            session.screen.line(f"  {host.name}: {', '.join(ON_HOST)} of the last {since}")
        return "nothing was collected"
    masks = masking.of(environment)
    with session.screen.step("collect") as step:
        files, problems = collect(session, seconds)
        step.done(f"{len(files)} parts of {len(environment.hosts)} hosts")
    names = Pseudonyms(environment)
    manifest = {"format": FORMAT, "made": datetime.now(UTC).isoformat(timespec="seconds"), "since": since}
    files[MANIFEST] = json.dumps({**manifest, "problems": problems}, indent=2)
    clean = {names.apply(name): names.apply(masks.apply(text)) for name, text in sorted(files.items())}
    leaking = [name for name, text in clean.items() if masks.found(text)]
    if leaking:
        raise OperatorError(
            f"no archive was written: a secret of {session.name} is, encoded, in {', '.join(leaking)}. Remove it from "
            "that configuration or journal, or change the secret, then try again"
        )
    file = Path.cwd() / f"support-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    write(file, clean)
    words = f"{file} ({file.stat().st_size / 2**20:.1f} MiB): inv doctor --bundle {file.name}"
    if problems:
        raise IncompleteError("the archive lacks " + "; ".join(problems), words)
    return words


def collect(session: Session, seconds: int) -> tuple[dict[str, str], list[str]]:
    """Return every part as text by its name, and the reasons for missing parts. All parts are collected together."""
    environment = session.environment
    work: dict[str, Callable[[], dict[str, str]]] = {
        "doctor": lambda: {DOCTOR: catalogue.as_json(catalogue.explained(doctor.examine(session)))},
        "versions": lambda: {"versions.json": _versions(session)},
        "metrics": lambda: _metrics(session, seconds),
        "tables": lambda: _tables(session),
        "inventory": lambda: {"inventory.yml": environment.inventory.read_text(encoding="utf-8")},
    }
    for host in environment.hosts:
        work[host.name] = lambda host=host: _on_host(session, host, seconds)  # type: ignore[misc] # bound now

    def done(name: str) -> tuple[dict[str, str], str]:
        try:
            return work[name](), ""
        except (OperatorError, OSError) as error:
            return {}, f"{name}: {error}"

    files: dict[str, str] = {}
    problems = []
    with ThreadPoolExecutor(8) as pool:
        for found, problem in pool.map(done, work):
            files |= found
            problems += [problem] if problem else []
    return files, problems


def _versions(session: Session) -> str:
    try:
        checkout = run(["git", "describe", "--always", "--dirty", "--tags"], cwd=paths.repository()).strip()
    except CommandError:
        checkout = "no git repository"
    rows = [dataclasses.asdict(row) for row in status.collect(session)]
    return json.dumps({"checkout": checkout, "services": rows}, indent=2)


def _metrics(session: Session, seconds: int) -> dict[str, str]:
    """Return Prometheus' figures; no file where monitoring has not been set up."""
    for host in session.environment.in_group("monitoring")[:1]:
        words = ["slo", "--history", str(seconds)]
        with Remote(session.environment, host) as remote:
            code, output, errors = remote.run([command.COMMAND, *words], timeout=monitoring.ANSWER_SECONDS)
        if code == command.NOT_FOUND or output.strip() == "null":
            return {}
        if code != 0:
            raise OperatorError(command.with_environment(command.said(code, "", errors), session.name))
        return {"metrics.json": output}
    return {}


def _tables(session: Session) -> dict[str, str]:
    found = {}
    with Remote(session.environment, session.environment.require_group("postgres")[0]) as remote:
        for name, query in TABLES.items():
            code, output, errors = remote.run(
                ["sh", "-c", sql.SCRIPT, "sh", sql.READER_FILE, query], timeout=PART_SECONDS
            )
            if code != 0:
                raise OperatorError(f"{last_words(errors, code)}: inv doctor --env {session.name}")
            found[name] = output
    return found


def _on_host(session: Session, host: Host, seconds: int) -> dict[str, str]:
    session.require_running(host)
    files = {}
    with Remote(session.environment, host) as remote:
        for name, script in ON_HOST.items():
            _, output, errors = remote.run(["sh", "-c", script, "sh", str(seconds)], timeout=PART_SECONDS)
            # What a command could not read is part of the evidence.
            files[f"hosts/{host.name}/{name}"] = output + errors
    return files


class Pseudonyms:
    """The same pseudonym for a host's name and for each of its addresses, everywhere; also for other addresses.

    :param environment: the hosts; their order gives the numbers.
    """

    def __init__(self, environment: Environment) -> None:
        """Note the names and addresses of the inventory.

        :raises OperatorError: Ansible cannot read it.
        """
        self._names = {socket.gethostname(): "control"}
        for number, host in enumerate(environment.hosts, start=1):
            login = ssh.login(environment, host)
            private = inventory.variables(environment, host).get("private_address", "")
            given = {login.address, str(private)}
            self._names |= {each: f"address-{number}" for each in given if each and "{{" not in each}
            self._names[host.name] = f"host-{number}"
            # The provider names a machine's file system so; `df` shows it.
            self._names[f"streampulse-{environment.name}-{host.name}"] = f"host-{number}"
        listed = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, listed))})(?![\w-]|\.\w)")

    def apply(self, text: str) -> str:
        """Return a text with pseudonyms."""
        text = self._pattern.sub(lambda found: self._names[found[0]], text)
        return _ADDRESS.sub(lambda found: self._of(found[0]), text)

    def _of(self, text: str) -> str:
        """Return the pseudonym of an address that is no host's; addresses that tell nothing stay."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            return text
        others = sum(name.startswith("other-") for name in self._names.values())
        return self._names.setdefault(text, f"other-{others + 1}")


def write(file: Path, files: dict[str, str]) -> None:
    """Write an archive that only its owner can read."""
    file.touch(mode=0o600)
    with tarfile.open(file, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"support/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, BytesIO(data))
    give_to_invoker(file)


def findings(file: Path, screen: Screen) -> list[Finding]:
    """Return doctor's findings of an archive, after a line for each part that it lacks.

    :raises IncompleteError: the file is no such archive, or another release's.
    """
    try:
        with tarfile.open(file, mode="r:gz") as archive:
            manifest = json.loads(_read(archive, MANIFEST))
            found = catalogue.from_json(_read(archive, DOCTOR)) if manifest["format"] == FORMAT else None
            problems: Iterable[Any] = manifest["problems"]
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise IncompleteError(
            f"{file} is no complete support bundle ({said}): make one with inv support-bundle", "nothing was looked at"
        ) from None
    if found is None:
        raise IncompleteError(f"{file} is of another release: use that release's checkout", "nothing was looked at")
    for problem in problems:
        screen.line(f"  the archive lacks {problem}")
    return found


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(f"support/{name}")
    stream = archive.extractfile(member)
    if stream is None or member.size > LARGEST_BYTES:
        raise ValueError(f"{name} is no file of a bundle")
    return stream.read()
