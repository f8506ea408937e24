"""Conditions that choose dead letters, and instants as people type them."""

import re
from typing import Final, NamedTuple

from streampulse.core.errors import UsageError
from streampulse.events import InvalidEvent, parse_ts
from streampulse.job.rows import REASONS

_SPAN: Final = re.compile(r"([0-9]+)([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_FORM: Final = "--where reason=late,stream=my-stream,since=2h"


class Where(NamedTuple):
    """Conditions on letters; None: any. ``since_ms`` is in milliseconds since the epoch."""

    reason: str | None = None
    stream: str | None = None
    since_ms: int | None = None


def where(text: str, now_ms: int) -> Where:
    """Read conditions such as ``reason=late,stream=red,since=2h``; ``since`` is a duration or an instant.

    :raises UsageError: they have another form.
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if (name not in Where._fields and name != "since") or not equals or not value:
            raise UsageError(f"{part} is not one of reason=…, stream=…, since=…. Try: {_FORM}")
        found[name] = value
    reason = found.get("reason")
    if reason not in (None, *REASONS):
        raise UsageError(f"{reason} is not a reason. There are: {', '.join(REASONS)}. Try: {_FORM}")
    since = found.get("since")
    return Where(reason, found.get("stream"), None if since is None else instant_ms(since, now_ms))


def instant_ms(text: str, now_ms: int) -> int:
    """Return the instant of ``2h`` (ago) or ``2026-01-31T09:30:00Z`` in milliseconds since the epoch.

    :raises UsageError: the text has another form.
    """
    span = _SPAN.fullmatch(text)
    if span is not None:
        return now_ms - int(span[1]) * _SECONDS[span[2]] * 1000
    try:
        return parse_ts(text) // 1000
    except InvalidEvent:
        raise UsageError(
            f"since {text}: neither a duration (30m, 2h, 1d) nor an instant (2026-01-31T09:30:00Z)"
        ) from None
