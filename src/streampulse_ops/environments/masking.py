"""Remove secrets from texts that leave the environment: by exact value and by pattern."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import yaml

from streampulse_ops.command import run
from streampulse_ops.environments import inventory, secrets
from streampulse_ops.environments.environment import Environment

MASK: Final = "***"
#: A shorter text may be an ordinary word.
SHORTEST: Final = 8
_NAMED: Final = re.compile(
    r"""((?:password|passwd|secret|token|api_?key|cookie|authorization)[\w-]*["']?\s*[=:]\s*(?:(?:bearer|basic)\s+)?["']?)"""
    r"""([^\s"',;&]+)""",
    re.IGNORECASE,
)
_IN_ADDRESS: Final = re.compile(r"(://[^\s:/@]+:)[^\s@/]+(?=@)")
_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


class Masks:
    """The secrets of an environment, as what removes them from a text.

    :param values: the secrets.
    """

    def __init__(self, values: Iterable[str]) -> None:
        """Note the secrets, the longest first: one may be a part of another."""
        self.values = tuple(sorted({each for each in values if len(each) >= SHORTEST}, key=len, reverse=True))

    def apply(self, text: str) -> str:
        """Return a text without secrets."""
        for value in self.values:
            text = text.replace(value, MASK)
        text = _KEY.sub(MASK, text)
        text = _IN_ADDRESS.sub(rf"\1{MASK}", text)
        return _NAMED.sub(rf"\1{MASK}", text)

    def found(self, text: str) -> bool:
        """Return whether a text has one of the secrets."""
        return any(value in text for value in self.values)


def of(environment: Environment) -> Masks:
    """Return the masks of an environment's secrets.

    :raises OperatorError: its vault cannot be opened.
    """
    file = secrets.file_for(environment)
    if environment.ours:
        document = json.loads(file.read_text(encoding="utf-8"))
    else:
        words = [inventory.program("ansible-vault"), "view", str(file)]
        document = yaml.safe_load(run(words, environment=inventory.configuration()))
    return Masks(_texts(document))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value
