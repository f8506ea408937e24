"""Log lines as ``key=value`` pairs: one line for each record, readable by people and by machines."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

# Text that needs no quotes: nothing that would end the value or be taken for another pair.
_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TO_ESCAPE = re.compile(r"[\"\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def pair(key: str, value: object) -> str:
    """Return ``key=value``, the value quoted and escaped where needed, so that no value can forge a line or a pair."""
    text = str(value)
    if _PLAIN.fullmatch(text) and "\\" not in text and _TO_ESCAPE.search(text) is None:
        return f"{key}={text}"
    escaped = _TO_ESCAPE.sub(lambda match: _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}", text)
    return f'{key}="{escaped}"'


class LogfmtFormatter(logging.Formatter):
    """Formats records; ``extra={"fields": {...}}`` of a logging call become pairs of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        pairs = [
            pair("ts", moment),
            pair("level", record.levelname.lower()),
            pair("logger", record.name),
            pair("msg", record.getMessage()),
        ]
        fields: dict[str, Any] = getattr(record, "fields", {})
        pairs += [pair(key, value) for key, value in fields.items()]
        if record.exc_info:
            pairs.append(pair("exception", self.formatException(record.exc_info)))
        return " ".join(pairs)


def configure(level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log record of this process to one stream (default: standard output) in this form."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
