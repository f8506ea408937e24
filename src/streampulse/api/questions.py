"""Requests for numbers: their parameters with bounds, and their answers from the snapshot or from the database.

Each class is one route's parameters. Unknown parameters are refused, so a typing error shows.
"""

import re
from bisect import bisect_left
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi.exceptions import RequestValidationError
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from streampulse.api import queries
from streampulse.api.queries import MINUTE, Ranking, Row
from streampulse.api.snapshot import Listing, Snapshot
from streampulse.events import MAX_ID_LENGTH, is_internal

#: A day. Also the longest history of one stream in one answer.
MAX_MINUTES: Final = 1440
MAX_LIMIT: Final = 1000
_NOT_TEXT: Final = "not_utf8"
_REPEATED: Final = "repeated"

#: Allowed values by kind of error, for errors that do not depend on the parameter.
ALLOWED_BY_ERROR: Final = {
    "extra_forbidden": "no such parameter here",
    _NOT_TEXT: "text in UTF-8",
    _REPEATED: "one value only",
}
#: Allowed values by parameter, for answers with status 422.
ALLOWED: Final = {
    "minutes": f"an integer from 1 to {MAX_MINUTES}",
    "limit": f"an integer from 1 to {MAX_LIMIT}",
    "n": f"an integer from 1 to {MAX_LIMIT}",
    "stream_id": f"1 to {MAX_ID_LENGTH} characters without U+0000",
    "after": f"at most {MAX_ID_LENGTH} characters without U+0000",
    "by": "one of chat_messages, donations, donations_usd, joins, leaves, unique_viewers, active_viewers",
}


def _plain_integer(value: Any) -> Any:
    # Without this, "1_0", "+5", " 5" and "5.0" would be read as integers as well.
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]{1,9}", value) is None:
            raise PydanticCustomError("int_parsing", "not an integer")
        return int(value)
    return value


_WHOLE: Final = BeforeValidator(_plain_integer)
Minutes = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_MINUTES,
        description="the last n one-minute windows of the whole table, the newest included; one without rows counts",
        examples=[10],
    ),
    _WHOLE,
]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="rows at most", examples=[100]), _WHOLE]
StreamName = (
    Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_ID_LENGTH,
            pattern=r"^[^\x00]*$",
            description="only this stream; a stream whose id begins with `__` appears only this way",
            examples=["speedrun-lounge-1"],
        ),
    ]
    | SkipJsonSchema[None]
)
After = Annotated[
    str,
    Field(
        max_length=MAX_ID_LENGTH,
        pattern=r"^[^\x00]*$",
        description="continue after this stream_id, the last one of the previous response (order of code points)",
        examples=["speedrun-lounge-1"],
    ),
]


class NoParameters(BaseModel):
    """Parameters of a route that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(NoParameters):
    """A request for numbers. Equal questions have equal answers, so questions are keys of caches."""

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the answer, or None if the snapshot does not hold all of it."""
        raise NotImplementedError

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Return the answer by a query."""
        raise NotImplementedError


class MetricsQuestion(Question):
    """``/metrics``: rows of the last windows, newest first."""

    minutes: Minutes = 10
    limit: Limit = 100
    stream_id: StreamName = None

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the newest rows if the snapshot holds them."""
        if self.stream_id is not None:
            rows = _of_stream(snapshot, self.stream_id, self.minutes)
        else:
            rows = snapshot.rows[: min(_rows_since(snapshot, self.minutes), self.limit)]
            if self.minutes > snapshot.minutes and len(rows) < self.limit:
                rows = None
        return None if rows is None else {"latest_window_start": snapshot.newest, "rows": rows[: self.limit]}

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Query the newest rows."""
        last, rows = queries.windows(cursor, minutes=self.minutes, limit=self.limit, stream_id=self.stream_id)
        return {"latest_window_start": last, "rows": rows}


class HistoryQuestion(Question):
    """``/metrics/history``: rows of the last windows, oldest first."""

    minutes: Minutes = 10
    limit: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_LIMIT,
            description="rows at most, the oldest of the span; with a stream_id and no limit: all of the span",
            examples=[100],
        ),
        _WHOLE,
    ] = MAX_LIMIT
    stream_id: StreamName = None

    @model_validator(mode="after")
    def _whole_span_of_one_stream(self) -> "HistoryQuestion":
        if self.stream_id is not None and "limit" not in self.model_fields_set:
            return self.model_copy(update={"limit": MAX_MINUTES})
        return self

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the oldest rows of the span if the snapshot holds all of it."""
        if self.stream_id is not None:
            found = _of_stream(snapshot, self.stream_id, self.minutes)
            return None if found is None else {"rows": found[::-1][: self.limit]}
        if self.minutes > snapshot.minutes:
            return None
        rows = snapshot.rows[: _rows_since(snapshot, self.minutes)]
        # The sort is stable, so rows of one window stay ordered by stream.
        return {"rows": sorted(rows, key=lambda row: row["window_start"])[: self.limit]}

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Query the oldest rows of the span."""
        _, rows = queries.windows(
            cursor, minutes=self.minutes, limit=self.limit, stream_id=self.stream_id, oldest_first=True
        )
        return {"rows": rows}


class _ListQuestion(Question):
    """One row for each stream, by stream."""

    limit: Limit = 100
    after: After = ""
    stream_id: StreamName = None

    def _rows(self, listing: Listing) -> dict[str, Any] | None:
        rows = listing.one(self.stream_id) if self.stream_id is not None else listing.page(self.after, self.limit)
        return None if rows is None else {"rows": rows}


class LatestQuestion(_ListQuestion):
    """``/metrics/latest``: the newest row of each stream, by stream."""

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the newest rows if the snapshot holds those streams."""
        return self._rows(snapshot.latest)

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Query the newest row of each stream."""
        return {"rows": queries.latest(cursor, limit=self.limit, after=self.after, stream_id=self.stream_id)}


class StateQuestion(_ListQuestion):
    """``/state``: viewers of each stream, by stream."""

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the viewers if the snapshot holds those streams."""
        return self._rows(snapshot.states)

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Query the viewers of each stream."""
        return {"rows": queries.state(cursor, limit=self.limit, after=self.after, stream_id=self.stream_id)}


class TopQuestion(Question):
    """``/streams/top``: a ranking over the last windows."""

    minutes: Minutes = 10
    by: Annotated[Ranking, Field(description="ranking criterion: sums over the windows, for viewers the maximum")] = (
        "donations_usd"
    )
    n: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="streams at most", examples=[5]), _WHOLE] = 5

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Rank the snapshot's rows if it holds all windows."""
        if self.minutes > snapshot.minutes:
            return None
        return {"rows": ranked(snapshot.rows[: _rows_since(snapshot, self.minutes)], self.by, self.n)}


Asked = TypeVar("Asked", bound=NoParameters)


@lru_cache(1024)
def read_query(model: type[Asked], query: bytes) -> Asked:
    """Return the parameters of a request. Equal queries are checked once.

    FastAPI would keep the last of repeated parameters and replace bytes that are not UTF-8, so this refuses both.

    :param query: the query as it was sent, without the question mark.
    :raises RequestValidationError: with every parameter that cannot be used.
    """
    errors: list[dict[str, Any]] = []
    values: dict[str, str] = {}
    for pair in filter(None, query.split(b"&")):
        name, _, value = (unquote_to_bytes(part.replace(b"+", b" ")) for part in pair.partition(b"="))
        shown = name.decode(errors="backslashreplace")
        kind = None
        try:
            text = value.decode()
            if name.decode() in values:
                kind = _REPEATED
        except UnicodeDecodeError:
            kind, text = _NOT_TEXT, value.decode(errors="backslashreplace")
        if kind is not None:
            errors.append({"type": kind, "loc": ("query", shown), "input": text})
        values[shown] = text
    if not errors:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            errors = [{**item, "loc": ("query", *item["loc"])} for item in error.errors()]
    raise RequestValidationError(errors)


def described(model: type[NoParameters]) -> dict[str, Any]:
    """Return the OpenAPI description of a model's fields as parameters of a query."""
    fields = model.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": schema.pop("description"), "schema": schema}
            for name, schema in fields.items()
        ]
    }


def _of_stream(snapshot: Snapshot, stream_id: str, minutes: int) -> list[Row] | None:
    """Return the rows of one stream in the last windows, newest first; None if the snapshot does not hold them."""
    if is_internal(stream_id) or minutes > snapshot.minutes:
        return None
    if snapshot.newest is None:
        return []
    first = snapshot.newest - (minutes - 1) * MINUTE
    return [row for row in snapshot.by_stream.get(stream_id, ()) if row["window_start"] >= first]


def _rows_since(snapshot: Snapshot, minutes: int) -> int:
    """Return how many rows of the snapshot lie in the last windows."""
    if snapshot.newest is None:
        return 0
    oldest = (minutes - 1) * MINUTE
    # Rows are ordered newest first, so their distance from the newest window grows.
    newest = snapshot.newest
    return bisect_left(snapshot.rows, True, key=lambda row: newest - row["window_start"] > oldest)


def cents(text: str) -> int:
    """Return an amount with two decimals in cents."""
    return int(text.replace(".", ""))


def dollars(amount: int) -> str:
    """Return cents as an amount with two decimals."""
    return f"{amount // 100}.{amount % 100:02d}"


_SUMS: Final = ("chat_messages", "donations", "donations_usd", "joins", "leaves")
_MAXIMA: Final = ("unique_viewers", "active_viewers")


def ranked(rows: list[Row], by: Ranking, n: int) -> list[Row]:
    """Return the first ``n`` streams of some rows: sums, for viewers maxima; ties by stream."""
    streams: dict[str, Row] = {}
    for row in rows:
        amount = cents(row["donations_usd"])
        stream = streams.get(row["stream_id"])
        if stream is None:
            names = ("stream_id", *_SUMS, *_MAXIMA)
            streams[row["stream_id"]] = {name: row[name] for name in names} | {"donations_usd": amount}
            continue
        for name in _SUMS:
            stream[name] += amount if name == "donations_usd" else row[name]
        for name in _MAXIMA:
            stream[name] = max(stream[name], row[name])
    first = sorted(streams.values(), key=lambda stream: (-stream[by], stream["stream_id"]))[:n]
    return [stream | {"donations_usd": dollars(stream["donations_usd"])} for stream in first]
