"""Remove secrets from texts that leave the environment: by exact value and by pattern."""

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
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
#: Names of an inventory's values that are secret, at any depth.
_SECRET_VARIABLE: Final = re.compile(r"passw|secret|token|_key$|webhook|slack|deadman", re.IGNORECASE)
_IN_ADDRESS: Final = re.compile(r"(://[^\s:/@]+:)[^\s@/]+(?=@)")
_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


class Masks:
    """The secrets of an environment, as what removes them from a text."""

    def __init__(self, values: Iterable[str]) -> None:
        """Note the secrets, the longest first: one may be a part of another."""
        self.values = tuple({each for each in values if len(each) >= SHORTEST})
        self._forms = tuple(sorted({form for each in self.values for form in _forms(each)}, key=len, reverse=True))
        self._within = tuple(part for each in self.values for part in _within_base64(each))

    def apply(self, text: str) -> str:
        """Return a text without secrets."""
        for form in self._forms:
            text = text.replace(form, MASK)
        text = _KEY.sub(MASK, text)
        text = _IN_ADDRESS.sub(rf"\1{MASK}", text)
        return _NAMED.sub(rf"\1{MASK}", text)

    def found(self, text: str) -> bool:
        """Return whether a text has one of the secrets: as it is, URL-encoded, in JSON, or inside base64."""
        return any(form in text for form in (*self._forms, *self._within))


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
    given = [environment.variables, *(host.variables for host in environment.hosts)]
    return Masks([*_texts(document), *_texts(given, named=True)])


def _forms(value: str) -> set[str]:
    """Return a secret in the forms in which a text may have it as a whole."""
    encoded = base64.b64encode(value.encode()).decode()
    return {value, urllib.parse.quote(value, safe=""), json.dumps(value)[1:-1], encoded, encoded.rstrip("=")}


def _within_base64(value: str) -> Iterator[str]:
    """Yield what base64 of a longer text has of a secret, for each of the three places where it can begin."""
    data = value.encode()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + data).decode()
        # A character has six bits; the first and the last ones also have bits of their neighbours.
        yield encoded[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]


def _texts(value: Any, *, named: bool = False) -> Iterator[str]:
    """Yield the texts of a document.

    :param named: only those below a name that says that its value is secret.
    """
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(each, named=named and not _SECRET_VARIABLE.search(str(name)))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, named=named)
    elif isinstance(value, str) and not named:
        yield value
