"""Check runbooks against the repository: each name in them exists. ``inv runbook validate`` shows file and line."""

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import yaml
from invoke.collection import Collection

from streampulse.core.errors import OperatorError
from streampulse.host import cli, wait
from streampulse_ops import paths, services
from streampulse_ops.command import which
from streampulse_ops.docs import pages as docs
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.monitoring import dashboards, metrics, rules
from streampulse_ops.runbooks import drills, page
from streampulse_ops.runbooks.page import ANY_HOST, CONTROL, FOLDER, Runbook, RunbookError, Step

#: Units of streampulse that are no services.
MORE_UNITS: Final = frozenset({"spark-classes.service", "postgresql.service", "*.service"})
#: The system's own folders, and paths of the API.
OTHER_PATHS: Final = frozenset(
    {"/", "/dev/null", "/var/log", "/var/cache", "/var/lib/prometheus", "/var/lib/postgresql", "/health", "/prometheus"}
    | {"/proc/loadavg", "/run", "/run/reboot-required", "/run/streampulse-rebooting"}
)
#: Words in the form of an alert's name that are no alerts.
OTHER_NAMES: Final = frozenset({"OutOfMemoryError"})
#: What changes something, as a word of a command.
CHANGING: Final = re.compile(
    r"systemctl (?:start|stop|restart|reset-failed|reboot)|\b(?:mv|rm|apt-get|kill|initdb)\b"
    r"|set-ntp|--vacuum|pg_terminate|VACUUM|--election-type|--spread"
    r"|\./inv (?:(?:up|down|smoke)\b"
    r"|(?:upgrade|start|stop|restart|silence|exclude(?! list)|dlq replay|reset|recount)(?!.*--dry-run))"
)
_SEVERITIES: Final = ("page", "ticket", "none")
_KEYWORDS: Final = frozenset(
    {
        *("if", "then", "else", "elif", "fi", "for", "do", "done", "while", "until", "case", "esac", "in", "true"),
        *("false", "exit", "set", "cd", "export"),
    }
)

#: A fault: its line and what is wrong.
Fault = tuple[int, str]


def validate(root: Path) -> list[str]:
    """Return every fault of the runbooks as ``file:line: text``.

    :param root: the folder that has ``docs/runbooks``; all names are looked up in this checkout.
    :raises OperatorError: shellcheck is missing.
    """
    found: list[str] = []
    books: list[Runbook] = []
    for file in page.files(root):
        try:
            books.append(page.read(file))
        except RunbookError as error:
            found.append(str(error))
    for book in books:
        for look in LOOKS:
            found += [f"{FOLDER}/{book.file.name}:{line}: {text}" for line, text in sorted(set(look(book)))]
    listed = {name for book in books for name in book.alerts}
    found += [
        f"{FOLDER}/{alert.runbook}.md:1: the alert {alert.name} has no runbook that lists it"
        for alert in rules.alerts()
        if alert.name not in listed
    ]
    return found


def _front(book: Runbook) -> Iterator[Fault]:
    line = book.line(book.text.index("alerts:"))
    if book.kind == "alert" and not book.alerts:
        yield line, "a page of kind alert has no alert"
    if book.kind == "procedure" and book.alerts:
        yield line, "a procedure has an alert: its kind must be alert"
    known = {alert.name: alert for alert in rules.alerts()}
    for name in book.alerts:
        if name not in known:
            yield line, f"there is no alert {name}"
        elif known[name].runbook != book.name:
            yield line, f"the alert {name} leads to {known[name].runbook}.md"
    # An alert may page and, by another rule, ask for a ticket.
    worst = min((_SEVERITIES.index(each.severity) for each in rules.alerts() if each.name in book.alerts), default=None)
    if worst is not None and book.severity != _SEVERITIES[worst]:
        yield (
            book.line(book.text.index("severity:")),
            f"severity is {book.severity}: the alerts say {_SEVERITIES[worst]}",
        )


def _drill(book: Runbook) -> Iterator[Fault]:
    line = book.line(book.text.index("severity:"))
    drill = drills.all_drills().get(book.name)
    if drill is None and book.name not in drills.without():
        yield line, f"it has no drill: {drills.FILE} names one, or under `without` the reason"
    if drill is not None and drill.alert not in (book.alerts or ("",)):
        about = ", ".join(book.alerts) or "no alert"
        yield line, f"its drill waits for {drill.alert or 'no alert'}, and the page is about {about}"
    proof = drills.proofs(paths.repository() / drills.PROOFS).get(book.name)
    if proof is not None and drills.old(proof, (paths.repository() / "CHANGELOG.md").read_text(encoding="utf-8")):
        yield (
            line,
            f"its proof is of {proof.version}, which is more than two versions old: inv drill {book.name} --record",
        )


def _sections(book: Runbook) -> Iterator[Fault]:
    for name, text in book.sections.items():
        if len(text) <= 20:
            yield book.line(book.text.index(f"\n## {name}") + 1), f"the section {name} says nothing"
    if not any(step.section == "Diagnosis" for step in book.steps):
        yield book.line(book.text.index("\n## Diagnosis") + 1), "Diagnosis has no command"


def _steps(book: Runbook) -> Iterator[Fault]:
    groups = {service.group for service in services.all_services()}
    names = {file.stem for file in page.files(paths.repository())}
    for step in book.steps:
        if re.findall(r"^(\d+)\. ", step.text, re.MULTILINE) != [str(step.number)]:
            yield step.line, f"the item of the list before it, and no other one, must have its number, {step.number}"
        if step.section not in ("Diagnosis", "Resolution"):
            yield step.line, f"a command in {step.section}: only Diagnosis and Resolution have some"
        if step.section == "Diagnosis" and step.changes and "./inv smoke" not in step.script:
            yield step.line, "Diagnosis changes something"
        if step.host not in groups | {CONTROL, ANY_HOST}:
            yield step.line, f"there is no group {step.host}"
        if bool(CHANGING.search(step.script)) != step.changes:
            yield step.line, f"changes={'yes' if step.changes else 'no'} is not what the commands do"
        for word, target in (("else", step.otherwise), ("then", step.following)):
            if target.isdigit() and not step.number < int(target) <= len(book.steps):
                yield step.line, f"{word}={target} is no later step"
        if step.otherwise and not step.otherwise.isdigit() and step.otherwise not in names:
            yield step.line, f"else={step.otherwise} is no runbook"


def _shell(book: Runbook) -> Iterator[Fault]:
    program = which("shellcheck")
    if program is None:
        raise OperatorError("shellcheck is not installed: apt-get install shellcheck")
    with tempfile.TemporaryDirectory() as folder:
        for step in book.steps:
            Path(folder, str(step.number)).write_text(step.script + "\n", encoding="utf-8")
        names = [str(step.number) for step in book.steps]
        words = [program, "--shell=sh", "--severity=warning", "--format=gcc", *names]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    for number, line, text in re.findall(r"^(\d+):(\d+):\d+: \w+: (.*)$", done.stdout, re.MULTILINE):
        yield book.steps[int(number) - 1].line + int(line), f"shell: {text}"


def _tasks(book: Runbook) -> Iterator[Fault]:
    """Check the tasks of the control machine and the ``streampulse`` commands of hosts."""
    full = _repairs_monitoring(book)
    for step in book.steps:
        tasks = re.findall(r"^\./inv (\S+)(.*)$", step.script, re.MULTILINE)
        if bool(tasks) != (step.host == CONTROL):
            yield step.line, "tasks run on the control machine, and nothing else does"
        for name, rest in tasks:
            yield from ((step.line, text) for text in _task(name, rest))
            if full and name in ("up", "reset") and "--full" not in rest:
                yield step.line, f"inv {name} needs --full to repair monitoring"
        for name in re.findall(r"^streampulse ([a-z]+)", step.script, re.MULTILINE):
            if name not in cli.COMMANDS:
                yield step.line, f"streampulse has no command {name}"
        for name in re.findall(r"^streampulse wait ([a-z-]+)", step.script, re.MULTILINE):
            if name not in wait._PROBES:
                yield step.line, f"streampulse wait knows no {name}"


def _repairs_monitoring(book: Runbook) -> bool:
    about = {alert.service for alert in rules.alerts() if alert.name in book.alerts}
    # A host may be one that only watches, and any unit may be one of those.
    full = {service.name for service in services.all_services() if service.full} | {"host"}
    watching = re.search(r"`(?:prometheus|alertmanager|probe|grafana|node_exporter|postgres_exporter)_", book.text)
    return bool(about & full or any("{{" in service for service in about) or watching)


def _task(name: str, rest: str) -> Iterator[str]:
    collection = _collection()
    if name not in collection.task_names:
        yield f"there is no task {name}"
        return
    known = {option for argument in collection[name].get_arguments() for option in argument.names}
    for option in re.findall(r"(?<!\S)-{1,2}([a-z][\w-]*)", rest):
        if not {option, option.replace("-", "_"), f"{option}_"} & known:
            yield f"inv {name} has no option --{option}"
    if '--env "${ENV:-local}"' not in rest:
        yield f'inv {name} does not name the environment: --env "${{ENV:-local}}"'


@cache
def _collection() -> Collection:
    return docs.tasks(paths.repository())


def _matches(book: Runbook, pattern: str, text: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield the line and the first group of each match, in the page or in a part of it."""
    part = book.text if text is None else text
    begin = book.text.index(part)
    for found in re.finditer(pattern, part):
        yield book.line(begin + found.start(1)), found[1]


def _units(book: Runbook) -> Iterator[Fault]:
    known = {unit for service in services.all_services() for unit in service.units} | MORE_UNITS
    for line, unit in _matches(book, r"([\w@*.-]+\.service)"):
        if unit not in known:
            yield line, f"there is no unit {unit}"


@cache
def _sources() -> str:
    """Return the texts that name the paths of hosts."""
    root = paths.repository()
    files = [root / "docs/architecture.md"]
    files += [each for folder in ("ansible", "systemd") for each in (root / folder).rglob("*") if each.is_file()]
    return "\n".join(
        each.read_text(encoding="utf-8") for each in files if each.suffix in {".yml", ".j2", ".md", ".py", ""}
    )


def _paths(book: Runbook) -> Iterator[Fault]:
    sources = _sources()
    for name in ("Symptoms", "Diagnosis", "Resolution"):
        section = book.sections[name]
        begin = book.text.index(section)
        spans = [found.span(1) for found in re.finditer(r"`([^`\n]+)`", section)]
        spans += [(at, at + len(step.script)) for step in book.steps if (at := section.find(step.script)) >= 0]
        for start, end in spans:
            for found in re.finditer(r"(?<![\w.*$}])/(?:[\w.-]+/?)*", section[start:end]):
                path = found[0].rstrip("/.") or "/"
                folder, _, last = path.removesuffix(".broken").rpartition("/")
                # Some are put together from a folder's variable and a name.
                there = f"{folder}/{last}" in sources or (
                    folder in sources and re.search(f"/{re.escape(last)}['\"\\n]", sources) is not None
                )
                if path not in OTHER_PATHS and not path.endswith("console.log") and not there:
                    yield book.line(begin + start + found.start()), f"there is no path {path}"


def _names(book: Runbook) -> Iterator[Fault]:
    alerts = {alert.name for alert in rules.alerts()} | OTHER_NAMES
    for line, word in _matches(book, r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`"):
        if word not in alerts:
            yield line, f"there is no alert {word}"
    uids = {f"streampulse-{name}" for name in dashboards.names()}
    related = book.sections["Related Monitoring"]
    for line, uid in [*_matches(book, r"`(streampulse-[a-z]+)`", related), *_matches(book, r"dashboard `([\w-]+)`")]:
        if uid not in uids:
            yield line, f"there is no dashboard {uid}"
    known = {series for metric in metrics.catalogue() for series in (metric.name, *metric.series)} | rules.recorded()
    known |= {word for group in rules.groups() for rule in group["rules"] for word in re.findall(r"\w+", rule["expr"])}
    for line, name in _matches(book, r"`((?:streampulse|node|pg|kafka)_[a-z_]+)`", related):
        if name not in known:
            yield line, f"there is no metric {name}"


def _variables(book: Runbook) -> Iterator[Fault]:
    known: set[str] = {service.group for service in services.all_services()}
    files = list((paths.repository() / "ansible/roles").glob("*/meta/argument_specs.yml"))
    for file in files:
        for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["argument_specs"].values():
            known |= set(entry.get("options", {}))
    roles = "|".join(file.parents[1].name for file in files)
    for line, name in _matches(book, rf"`((?:{roles})_[a-z_]+)`"):
        if name not in known and not name.startswith(("spark_master", "kafka_server", "kafka_controller")):
            yield line, f"no role has the variable {name}"


def _data(book: Runbook) -> Iterator[Fault]:
    """Look up topics and tables."""
    topics = set(re.findall(r"\bstream\.events(?:\.\w+)?\b", _sources()))
    for line, name in _matches(book, r"\b(stream\.[a-z.]*[a-z])\b"):
        if name not in topics:
            yield line, f"there is no topic {name}"
    sql = "\n".join(file.read_text(encoding="utf-8") for file in (paths.repository() / "sql").glob("*.sql"))
    tables = set(re.findall(r"(?:TABLE|VIEW)(?: IF NOT EXISTS)? (\w+)", sql))
    for line, name in _matches(book, r"(?i:\b(?:FROM|UPDATE|INTO|JOIN|table)) `?([a-z]+_[a-z_]+)\b"):
        if name not in tables and not name.startswith("pg_"):
            yield line, f"there is no table {name}"


def _links(book: Runbook) -> Iterator[Fault]:
    folder = paths.repository() / FOLDER
    for line, target in _matches(book, r"\]\(([^)\s#]+)[^)]*\)"):
        if not re.match(r"[a-z]+:", target) and not (folder / target).exists():
            yield line, f"the link leads nowhere: {target}"


LOOKS: Final[tuple[Callable[[Runbook], Iterator[Fault]], ...]] = (
    *(_front, _drill, _sections, _steps, _shell, _tasks, _units, _paths, _names, _variables, _data, _links),
)


def on_hosts(session: Session) -> list[str]:
    """Return the programs and units that pages need and that hosts of an environment lack.

    :raises OperatorError: a host cannot be reached.
    """
    found = []
    books = page.load(paths.repository()).values()
    for host in session.environment.hosts:
        here = [(book, step) for book in books for step in book.steps if step.host in host.groups | {ANY_HOST}]
        tools = sorted({tool for _, step in here for tool in tools_of(step)})
        with Remote(session.environment, host) as remote:
            script = 'for each; do command -v "$each" >/dev/null || echo "$each"; done'
            _, output, _ = remote.run(["sh", "-c", script, "sh", *tools])
        missing = set(output.split())
        for book, step in here:
            found += [
                f"{FOLDER}/{book.file.name}:{step.line}: {host.name} has no {tool}"
                for tool in sorted(missing & tools_of(step))
            ]
    return found


def tools_of(step: Step) -> set[str]:
    """Return the programs that a step runs on a host."""
    found = set()
    for part in re.split(r"\n|\||;|&&|\$\(", step.script):
        try:
            words = [word for word in shlex.split(part) if not re.match(r"\w+=", word)]
        except ValueError:
            continue  # a part of a quoted text
        if words and re.fullmatch(r"[a-z][\w.-]*", words[0]) and words[0] not in _KEYWORDS:
            found.add(words[0])
    return found
