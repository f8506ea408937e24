"""Doctor's findings: their codes, from ``findings.yml``, their JSON and its schema, and the page that lists them."""

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, TypeAdapter

from streampulse_ops.docs.markdown import table

PAGE: Final = "docs/reference/findings.md"
SCHEMA: Final = "docs/reference/doctor.schema.json"
Severity = Literal["", "page", "ticket", "unknown"]
#: Severity of a finding that says only that doctor could not look.
UNKNOWN: Final[Severity] = "unknown"


@dataclass(frozen=True)
class Code:
    """The meaning of a code; ``findings.yml`` explains the fields."""

    severity: Severity
    what: str
    why: str
    runbook: str


@dataclass(frozen=True)
class Finding:
    """The result of one look. A fault has a code, a cause and the command that fixes it."""

    check: Annotated[str, Field(description="the look")]
    where: Annotated[str, Field(description="hosts, service or file; of a good result also what was seen")]
    ok: Annotated[bool, Field(description="whether all is well")]
    cause: Annotated[str, Field(description="what was seen that is wrong")] = ""
    fix: Annotated[str, Field(description="the command to begin with")] = ""
    code: Annotated[str, Field(description="stable code of the fault", pattern=r"^(SP-[A-Z]+-\d{3})?$")] = ""
    severity: Annotated[Severity, Field(description="unknown: doctor could not look")] = ""
    why: Annotated[str, Field(description="the consequence")] = ""
    runbook: Annotated[str, Field(description="the page to read: a file of the repository, or an address")] = ""
    muted: Annotated[str, Field(description="the reason for which a person muted this code; empty: not muted")] = ""


_FINDINGS: Final = TypeAdapter(list[Finding])


@cache
def _document() -> dict[str, Any]:
    return dict(yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8")))


@cache
def codes() -> dict[str, Code]:
    """Return every code in use with its meaning, causes before their consequences."""
    return {code: Code(**each) for code, each in _document()["findings"].items()}


def _before() -> dict[str, str]:
    """Return by service the first code that may follow from its unit or port, in the order of starts."""
    return dict(_document()["units"])


def retired() -> list[str]:
    """Return the codes that are never used again."""
    return list(_document()["retired"])


def explained(findings: list[Finding]) -> list[Finding]:
    """Return findings with what their codes mean: first the good ones, then the faults, causes first."""
    found = []
    for each in findings:
        known = codes().get(each.code)
        if known is not None:
            each = dataclasses.replace(
                each,
                severity=each.severity or known.severity,
                why=each.why or known.why,
                runbook=each.runbook or f"docs/runbooks/{known.runbook}.md",
            )
        found.append(each)
    return sorted(found, key=_place)


def _place(finding: Finding) -> tuple[float, int]:
    """Return where a finding stands. A service's unit and port stand before its own codes, behind what it needs."""
    order = {code: number for number, code in enumerate(codes())}
    if finding.ok:
        return -1, 0
    _, _, service = finding.check.partition(".")
    if finding.code.startswith(("SP-UNIT", "SP-PORT")) and service in _before():
        names = list(_before())
        return order[_before()[service]] - 0.5, names.index(service)
    # An unknown code is one of another release's host.
    return order.get(finding.code, len(order)), 0


def as_json(findings: list[Finding]) -> str:
    """Return findings as the JSON that :func:`schema` describes."""
    return _FINDINGS.dump_json(findings).decode()


def from_json(text: str | bytes) -> list[Finding]:
    """Return the findings of :func:`as_json`.

    :raises ValueError: the text is something else.
    """
    return _FINDINGS.validate_json(text)


def schema(_: Path) -> str:
    """Return the JSON Schema of ``inv doctor --json``."""
    return json.dumps({"title": "inv doctor --json", **_FINDINGS.json_schema()}, indent=2) + "\n"


def page(_: Path) -> str:
    """Return the page that lists the codes."""
    rows = (
        (f"`{code}`", each.severity, each.what, each.why, f"[{each.runbook}](../runbooks/{each.runbook}.md)")
        for code, each in codes().items()
    )
    head = """\
# Findings of doctor

<!-- Made by `./inv docs`. Change the code that it describes, not this page. -->

Causes stand before their consequences, as `./inv doctor` shows them. A code never changes its meaning and is never used
again. *unknown*: doctor could not look; with nothing but such findings it exits 3. The JSON of `./inv doctor --json` is
described by [its schema](doctor.schema.json).
"""
    return "\n".join([head, *table(("code", "severity", "fault", "consequence", "runbook"), rows), ""])
