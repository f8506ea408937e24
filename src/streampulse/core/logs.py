"""Log lines as ``key=value`` pairs: one line for each record, readable by people and by machines.

Where a line goes to the journal it begins with its priority in angle brackets (sd-daemon(3)), which journald takes off
and keeps, so that ``journalctl --priority=warning`` works.
"""

import logging
import os
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

log = logging.getLogger(__name__)

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


class JournalFormatter(LogfmtFormatter):
    """Formats records for the journal: before the pairs, the priority."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return f"<{_priority(record.levelno)}>{super().format(record)}"


def _priority(level: int) -> int:
    """Return syslog's severity for a level of logging."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7


def reaches_journal(stream: TextIO) -> bool:
    """Tell whether systemd has connected a stream to the journal.

    ``JOURNAL_STREAM`` names device and inode of the connection (systemd.exec(5)): a stream that was led elsewhere since
    has others.
    """
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def journal_prefix(level: int, stream: TextIO) -> str:
    """Return the priority prefix of a printed line that reaches the journal, otherwise an empty text."""
    return f"<{_priority(level)}>" if reaches_journal(stream) else ""


def formatter(stream: TextIO | None = None, relayed: bool = False) -> LogfmtFormatter:
    """Return the formatter for a stream.

    :param stream: where the lines go; standard output when None.
    :param relayed: somebody else copies them from there to the journal, where there is one: spark-submit does so with
        the driver's.
    """
    journal = bool(os.environ.get("JOURNAL_STREAM")) if relayed else reaches_journal(stream or sys.stdout)
    return JournalFormatter() if journal else LogfmtFormatter()


def configure(level: int = logging.INFO, stream: TextIO | None = None, relayed: bool = False) -> None:
    """Send every log record of this process to one stream in this form, and what ends it unexpectedly as well.

    :param stream: standard output when None.
    :param relayed: see :func:`formatter`.
    """
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(formatter(stream, relayed))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # httpx writes a line for each request. Callers log the meaning of an answer.
    logging.getLogger("httpx").setLevel(max(level, logging.WARNING))
    sys.excepthook = _ended
    threading.excepthook = lambda ended: _ended(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _ended(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log an uncaught exception in one line instead of Python's traceback."""
    if error is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return
    log.critical("unexpected error", exc_info=(kind, error, trace))
