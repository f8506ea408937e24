"""One event a minute from Kafka to the API: its arrival, its latency and its counts.

The events belong to a stream of the probe's own, ``__probe``, which moves no clock and appears in no list, total or
ranking. Each is the only one of its window, so its row is known.
"""

import datetime
import json
import logging
import threading
import time
import uuid
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from streampulse.probe import metrics
from streampulse.probe.api import Api, Failed, Refused, Row, Unanswered
from streampulse.probe.send import Sender, Unsent

log = logging.getLogger(__name__)

STREAM: Final = "__probe"
#: The expected row of one chat message.
EXPECTED: Final[dict[str, int]] = {
    "chat_messages": 1, "donations": 0, "donations_usd": 0, "joins": 0, "leaves": 0, "unique_viewers": 1,
    "active_viewers": 0,
}  # fmt: skip
# Windows are counted back from the table's newest, which may be five minutes ahead of the broker's clock.
_PATH: Final = f"/metrics/history?minutes=15&stream_id={STREAM}"
_MINUTE_SECONDS: Final = 60
# The latency excludes connecting.
_AHEAD_SECONDS: Final = 3.0
# The first polls follow the API's refresh interval, later ones are rarer: a lost event takes 90 requests.
_PAUSE_SECONDS: Final = 0.2
_LONG_PAUSE_SECONDS: Final = 0.5
_LONG_AFTER_SECONDS: Final = 10.0


class Sent(NamedTuple):
    """An event, and the start of its window."""

    event_id: str
    window_start: datetime.datetime
    value: bytes


def make(now: datetime.datetime) -> Sent:
    """Return the event whose time is the given instant."""
    moment = now.astimezone(datetime.UTC)
    event_id = str(uuid.uuid4())
    event = {
        "event_id": event_id,
        "ts": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "event_type": "chat_message",
        "stream_id": STREAM,
        "user_id": STREAM,
        "message_len": 5,
    }
    return Sent(event_id, moment.replace(second=0, microsecond=0), json.dumps(event).encode())


def row_of(rows: list[Row], window_start: datetime.datetime) -> Row | None:
    """Return the row of a window, None while it is missing."""
    return next((row for row in rows if _moment(row.get("window_start")) == window_start), None)


def differences(row: Row) -> list[str]:
    """Return the columns in which a row differs from one event's row."""
    return [f"{name} is {row.get(name)} and not {value}" for name, value in EXPECTED.items() if _differs(row, name)]


def next_due(now: float, second: int) -> float:
    """Return the next instant at this second of a minute, later than ``now``; both in seconds since the epoch."""
    due = now - now % _MINUTE_SECONDS + second
    return due if due > now else due + _MINUTE_SECONDS


class Events:
    """Sends the events and follows each to its row.

    :param sender: sends them to Kafka.
    :param api: serves their rows.
    :param second: second of each minute at which one is sent. After a restart the probe waits for the next: it cannot
        know whether it has sent one in this window.
    :param patience: seconds after which an invisible event is lost.
    """

    def __init__(self, sender: Sender, api: Api, second: int, patience: float) -> None:
        self._sender = sender
        self._api = api
        self._second = second
        self._patience = patience
        self._due = next_due(time.time(), second)
        self._newest: datetime.datetime | None = None
        self._stop = threading.Event()

    def step(self) -> float:
        """Send the event that is due and follow it; return the seconds until the next call."""
        wait = self._due - time.time()
        if wait > _MINUTE_SECONDS:
            # The clock was set back.
            self._due = next_due(time.time(), self._second)
        elif wait > _AHEAD_SECONDS:
            return wait - _AHEAD_SECONDS
        elif wait > 0:
            self._sender.connect()
        else:
            self._due = next_due(time.time(), self._second)
            self.send_and_follow(make(datetime.datetime.now(datetime.UTC)))
        return max(0.0, self._due - time.time())

    def stop(self) -> None:
        """Stop following the event; its outcome stays open."""
        self._stop.set()

    def send_and_follow(self, event: Sent) -> None:
        """Send an event, poll for its row until it is there or patience has run out, and count the outcome.

        A window gets one event only: with two, the row would match neither.
        """
        if self._newest is not None and event.window_start <= self._newest:
            log.warning("the clock was set back: no second event in one window", extra={"fields": _fields(event)})
            return
        self._newest = event.window_start
        started = time.monotonic()
        try:
            self._sender.send(STREAM, event.value)
        except Unsent as error:
            self._note(event, "unsent", metrics.NEVER_SECONDS, str(error))
            return
        cause, refused = "", False
        while not self._stop.is_set():
            asked = time.monotonic()
            try:
                row = row_of(self._api.rows(_PATH, request_id=f"probe-{event.event_id}").rows, event.window_start)
            except (Unanswered, Failed) as error:
                row, cause = None, f"the API does not answer as it should: {error}"
                refused = isinstance(error, Refused)
            else:
                cause, refused = "the API has no row", False
            took = time.monotonic() - started
            # A late response counts as none.
            if row is not None and took <= self._patience:
                found = differences(row)
                self._note(event, "wrong" if found else "exact", took, "; ".join(found))
                return
            if took > self._patience:
                # A 4xx means that the probe could not look, so the event counts as unread.
                self._note(event, "unread" if refused else "lost", None if refused else metrics.NEVER_SECONDS, cause)
                return
            pause = _PAUSE_SECONDS if took < _LONG_AFTER_SECONDS else _LONG_PAUSE_SECONDS
            self._stop.wait(max(0.0, asked + pause - time.monotonic()))

    def _note(self, event: Sent, outcome: str, seconds: float | None, cause: str) -> None:
        metrics.EVENTS.labels(outcome).inc()
        if seconds is not None:
            metrics.END_TO_END_SECONDS.observe(seconds)
        fields: dict[str, object] = {**_fields(event), "outcome": outcome}
        if outcome == "exact":
            metrics.LAST_EXACT.set(time.time())
            log.info("event", extra={"fields": fields | {"seconds": seconds and round(seconds, 3)}})
        else:
            log.warning("event", extra={"fields": fields | {"cause": cause}})


def _fields(event: Sent) -> dict[str, object]:
    window = event.window_start.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"stream_id": STREAM, "event_id": event.event_id, "window_start": window}


def _moment(value: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _differs(row: Row, name: str) -> bool:
    try:
        return Decimal(str(row.get(name))) != EXPECTED[name]
    except InvalidOperation:
        return True
