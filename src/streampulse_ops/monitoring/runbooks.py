"""Runbooks as data: pages of docs/runbooks that people read, and whose commands programs may run.

A page has front matter (``severity``, ``last_updated``, ``alerts``), the sections of :data:`SECTIONS`, and commands in
fences whose info string says where they run and what they do::

    ```sh host=kafka changes=no expect="^active$"
    systemctl is-active kafka.service
    ```

``host`` is a group of the inventory, ``all`` for the host that the alert names, or ``control`` for the control machine.
On hosts, commands run as root. ``changes`` says whether anything is different afterwards. ``expect`` is a regular
expression that a line of the output matches on a healthy host.
"""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from streampulse.core.errors import OperatorError

FOLDER: Final = "docs/runbooks"
SECTIONS: Final = ("Symptoms", "Diagnosis", "Resolution", "Prevention", "Related Monitoring")
#: The host that the alert names, and the control machine.
ANY_HOST: Final = "all"
CONTROL: Final = "control"


class RunbookError(OperatorError):
    """A page breaks a rule of runbooks; the text says where and why."""


@dataclass(frozen=True)
class Step:
    """One block of commands.

    :param section: the section that it stands in.
    :param host: a group, :data:`ANY_HOST` or :data:`CONTROL`.
    :param changes: whether anything is different afterwards.
    :param expect: a line of the output matches it when this part is well; None: nothing is expected.
    :param line: where the fence begins, counted from 1.
    """

    section: str
    host: str
    changes: bool
    expect: re.Pattern[str] | None
    script: str
    line: int


@dataclass(frozen=True)
class Runbook:
    """One page."""

    name: str
    title: str
    severity: str
    last_updated: datetime.date
    alerts: tuple[str, ...]
    sections: dict[str, str]
    steps: tuple[Step, ...]


def load(root: Path) -> dict[str, Runbook]:
    """Return every runbook by its name, which is the page's without its ending.

    :param root: the checkout.
    :raises RunbookError: a page is not what it must be.
    """
    return {file.stem: read(file) for file in sorted((root / FOLDER).glob("*.md"))}


def read(file: Path) -> Runbook:
    """Return one runbook.

    :raises RunbookError: the page is not what it must be.
    """
    text = file.read_text(encoding="utf-8")
    head, found, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not found:
        raise RunbookError(f"{file.name} begins without front matter between two lines of ---")
    facts = _facts(file, head)
    offset = text.count("\n") - body.count("\n")
    steps = tuple(_steps(file, body, offset))
    title = re.search(r"^# (.+)$", body.partition("\n## ")[0], re.MULTILINE)
    if title is None:
        raise RunbookError(f"{file.name} has no title")
    sections = _sections(body)
    if tuple(sections) != SECTIONS:
        raise RunbookError(f"{file.name} has the sections {', '.join(sections)}: it must have {', '.join(SECTIONS)}")
    return Runbook(
        name=file.stem,
        title=title[1],
        severity=facts["severity"],
        last_updated=facts["last_updated"],
        alerts=tuple(facts["alerts"]),
        sections=sections,
        steps=steps,
    )


def _facts(file: Path, head: str) -> dict[str, Any]:
    try:
        facts = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise RunbookError(f"{file.name} has front matter that cannot be read: {error}") from None
    kinds = {"severity": str, "last_updated": datetime.date, "alerts": list}
    if not isinstance(facts, dict) or set(facts) != set(kinds):
        raise RunbookError(f"{file.name} must have {', '.join(kinds)} in its front matter, and nothing else")
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind):
            raise RunbookError(f"{file.name} has {facts[name]!r} for {name}")
    return facts


def _sections(body: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    current: list[str] = []
    fenced = False
    for line in body.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            current = found.setdefault(line.removeprefix("## "), [])
        else:
            current.append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def _steps(file: Path, body: str, offset: int) -> Iterator[Step]:
    section, info, begun = "", "", 0
    script: list[str] | None = None
    for number, line in enumerate(body.splitlines(), offset + 1):
        if script is None and line.startswith("## "):
            section = line.removeprefix("## ")
        if line.startswith("```") and script is None:
            info, begun, script = line.removeprefix("```"), number, []
        elif line.startswith("```") and script is not None:
            yield _step(f"{file.name}:{begun}", section, info, "\n".join(script), begun)
            script = None
        elif script is not None:
            script.append(line)
    if script is not None:
        raise RunbookError(f"{file.name}:{begun} begins a block that does not end")


def _step(where: str, section: str, info: str, script: str, line: int) -> Step:
    language, *words = shlex.split(info)
    given = dict(word.partition("=")[::2] for word in words)
    if language != "sh" or not {"host", "changes"} <= set(given) <= {"host", "changes", "expect"}:
        raise RunbookError(f'{where} must begin with ```sh host=GROUP changes=yes|no, and perhaps expect="..."')
    if given["changes"] not in ("yes", "no"):
        raise RunbookError(f"{where} says changes={given['changes']}: it must be yes or no")
    try:
        expect = re.compile(given["expect"], re.MULTILINE) if "expect" in given else None
    except re.error as error:
        raise RunbookError(f"{where} expects what is no regular expression: {error}") from None
    return Step(section, given["host"], given["changes"] == "yes", expect, script, line)
