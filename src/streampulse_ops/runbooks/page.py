"""Pages of docs/runbooks, which people read and whose commands programs run.

A page has front matter (:data:`FACTS`), the sections of :data:`SECTIONS`, and commands in fences whose info string says
where they run and what they do. Each fence is a step, and its item of the list has its number over the whole page::

    1. Is it running?

    ```sh host=kafka changes=no expect="^active$" else=3
    systemctl is-active kafka.service
    ```

- ``host``: a group of the inventory, ``all`` for the host that the alert names, ``control`` for the control machine.
  On hosts, commands run as root. On the control machine, ``ENV`` is the environment, ``HOST`` the host of ``--host``.
- ``changes``: whether anything is different afterwards.
- ``expect``: a regular expression that a line of the output matches when all is well. Without it, exit code 0 is
  expected.
- ``timeout``: seconds after which the commands are given up.
- ``retry``: seconds for which the step is repeated until its result is as expected.
- ``else``: after an unexpected result, the number of a later step at which the run goes on, or the page to go to.
- ``then``: after the expected result, the number of a later step at which the run goes on, or ``end``: all is well.
"""

import datetime
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from markdown_it import MarkdownIt

from streampulse.core.errors import OperatorError, one_line

FOLDER: Final = "docs/runbooks"
SECTIONS: Final = ("Symptoms", "Diagnosis", "Resolution", "Prevention", "Related Monitoring")
#: Front matter of each kind of page. A page of the kind ``alert`` has alerts; a ``procedure`` has none.
FACTS: Final = {"kind": str, "severity": str, "last_updated": datetime.date, "alerts": list}
KINDS: Final = ("alert", "procedure")
#: The host that the alert names, and the control machine.
ANY_HOST: Final = "all"
CONTROL: Final = "control"
#: Seconds after which a step is given up: on a host, and on the control machine, whose tasks set up environments.
HOST_SECONDS: Final = 60
CONTROL_SECONDS: Final = 1800


class RunbookError(OperatorError):
    """A page breaks a rule of runbooks; the text says where and why."""

    def __init__(self, file: Path, line: int, text: str) -> None:
        super().__init__(f"{FOLDER}/{file.name}:{line}: {text}")


@dataclass(frozen=True)
class Step:
    """One block of commands; the head of the module explains its words.

    :param number: counted from 1 over the whole page.
    :param section: the section that it stands in.
    :param text: the words of the page before the block.
    :param line: where the fence begins, counted from 1.
    """

    number: int
    section: str
    text: str
    script: str
    line: int
    host: str
    changes: bool
    expect: re.Pattern[str] | None
    timeout: int
    retry: int
    otherwise: str
    following: str


@dataclass(frozen=True)
class Runbook:
    """One page.

    :param file: the page's file.
    :param text: all of it.
    :param after: the words of the page behind each step, by the step's number: what it says next.
    """

    name: str
    file: Path
    text: str
    title: str
    kind: str
    severity: str
    last_updated: datetime.date
    alerts: tuple[str, ...]
    sections: dict[str, str]
    steps: tuple[Step, ...]
    after: dict[int, str]

    def line(self, position: int) -> int:
        """Return the line of a position in the text, counted from 1."""
        return self.text.count("\n", 0, position) + 1


def load(root: Path) -> dict[str, Runbook]:
    """Return every runbook by its name, which is the page's without its ending.

    :raises RunbookError: a page is not what it must be.
    """
    return {file.stem: read(file) for file in files(root)}


def files(root: Path) -> list[Path]:
    """Return the files of the runbooks."""
    return sorted((root / FOLDER).glob("*.md"))


def read(file: Path) -> Runbook:
    """Return one runbook.

    :raises RunbookError: the page is not what it must be.
    """
    text = file.read_text(encoding="utf-8")
    head, found, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not found:
        raise RunbookError(file, 1, "it must begin with front matter between two lines of ---")
    facts = _facts(file, head)
    offset = text.count("\n") - body.count("\n")
    title = re.search(r"^# (.+)$", body.partition("\n## ")[0], re.MULTILINE)
    if title is None:
        raise RunbookError(file, offset + 1, "it has no title")
    tokens = MarkdownIt().parse(body)
    headings = [
        (tokens[number + 1].content, offset + token.map[0] + 1)
        for number, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == "h2" and token.map
    ]
    fences = [token for token in tokens if token.type == "fence" and token.map]
    for token in fences:
        if re.search("^```", token.content, re.MULTILINE) and token.map:
            raise RunbookError(file, offset + token.map[0] + 1, "it begins a block that does not end")
    names = tuple(name for name, _ in headings)
    if names != SECTIONS:
        missing = ", ".join(each for each in SECTIONS if each not in names) or "their order"
        line = headings[0][1] if headings else offset + 1
        raise RunbookError(file, line, f"it must have the sections {', '.join(SECTIONS)}: look at {missing}")
    lines = text.splitlines()
    ends = [line for _, line in headings[1:]] + [len(lines) + 1]
    sections = {
        name: "\n".join(lines[line : end - 1]).strip() for (name, line), end in zip(headings, ends, strict=True)
    }
    spans = [(offset + token.map[0] + 1, offset + token.map[1]) for token in fences if token.map]
    steps = []
    for number, (token, (line, end)) in enumerate(zip(fences, spans, strict=True), 1):
        if not lines[end - 1].startswith("```") or end == line:
            raise RunbookError(file, line, "it begins a block that does not end")
        section, begun = max(
            ((name, at) for name, at in headings if at < line), key=lambda each: each[1], default=("", 0)
        )
        before = max(begun, spans[number - 2][1] if number > 1 else 0)
        words = "\n".join(lines[before : line - 1]).strip()
        steps.append(_step(file, number, section, words, token.info, token.content.rstrip("\n"), line))
    after = {}
    for number, (_, end) in enumerate(spans, 1):
        following = min([at for at, _ in spans[number:]] + [at for _, at in headings if at > end] + [len(lines) + 1])
        after[number] = "\n".join(lines[end : following - 1]).strip()
    return Runbook(
        name=file.stem,
        file=file,
        text=text,
        title=title[1],
        kind=facts["kind"],
        severity=facts["severity"],
        last_updated=facts["last_updated"],
        alerts=tuple(facts["alerts"]),
        sections=sections,
        steps=tuple(steps),
        after=after,
    )


def _facts(file: Path, head: str) -> dict[str, Any]:
    try:
        facts = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise RunbookError(file, 1, f"its front matter cannot be read: {one_line(error)}") from None
    if not isinstance(facts, dict) or set(facts) != set(FACTS):
        raise RunbookError(file, 1, f"its front matter must have {', '.join(FACTS)}, and nothing else")
    for line, name in enumerate(facts, 2):
        if not isinstance(facts[name], FACTS[name]):
            raise RunbookError(file, line, f"{name} is {facts[name]!r}")
        if name == "kind" and facts[name] not in KINDS:
            raise RunbookError(file, line, f"kind is {facts[name]}: it must be alert or procedure")
    return facts


_WORDS: Final = frozenset({"host", "changes", "expect", "timeout", "retry", "else", "then"})


def _step(file: Path, number: int, section: str, text: str, info: str, script: str, line: int) -> Step:
    language, *words = shlex.split(info) or [""]
    given = dict(word.partition("=")[::2] for word in words)
    if language != "sh" or not {"host", "changes"} <= set(given) <= _WORDS:
        raise RunbookError(
            file, line, f"it must begin with ```sh host=GROUP changes=yes|no, and perhaps {_more(given)}"
        )
    if given["changes"] not in ("yes", "no"):
        raise RunbookError(file, line, f"changes={given['changes']}: it must be yes or no")
    if not re.fullmatch(r"[0-9]*|end", given.get("then", "")):
        raise RunbookError(file, line, f"then={given['then']}: it must be a later step or end")
    for name in ("timeout", "retry"):
        if not re.fullmatch(r"[1-9][0-9]{0,4}|", given.get(name, "")):
            raise RunbookError(file, line, f"{name}={given[name]}: it must be a number of seconds")
    try:
        expect = re.compile(given["expect"], re.MULTILINE) if "expect" in given else None
    except re.error as error:
        raise RunbookError(file, line, f"expect is not a regular expression: {error}") from None
    usual = CONTROL_SECONDS if given["host"] == CONTROL else HOST_SECONDS
    return Step(
        number=number,
        section=section,
        text=text,
        script=script,
        line=line,
        host=given["host"],
        changes=given["changes"] == "yes",
        expect=expect,
        timeout=int(given.get("timeout") or usual),
        retry=int(given.get("retry") or 0),
        otherwise=given.get("else", ""),
        following=given.get("then", ""),
    )


def _more(given: dict[str, str]) -> str:
    unknown = sorted(set(given) - _WORDS)
    return "expect, timeout, retry, else, then" + (f", but not {', '.join(unknown)}" if unknown else "")
