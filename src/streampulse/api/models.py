"""Models of the API's answers, for its description."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

Instant = Annotated[datetime, Field(examples=["2026-05-01T12:34:00Z"])]
StreamId = Annotated[str, Field(description="the stream's id", examples=["speedrun-lounge-1"])]
Count = Annotated[int, Field(ge=0)]
Money = Annotated[
    str,
    Field(
        description="US dollars, an exact decimal as a string with two decimals",
        pattern=r"^[0-9]+\.[0-9]{2}$",
        examples=["120.50"],
    ),
]


class Measures(BaseModel):
    """Counts of one stream over a time span."""

    stream_id: StreamId
    chat_messages: Count = Field(description="chat messages", examples=[412])
    donations: Count = Field(description="number of donations", examples=[7])
    donations_usd: Money
    joins: Count = Field(description="viewers' joins", examples=[95])
    leaves: Count = Field(description="viewers' leaves", examples=[88])


class MetricsRow(Measures):
    """One stream in one minute."""

    window_start: Instant = Field(description="start of the minute [start, start + 60 s), UTC, RFC 3339")
    unique_viewers: Count = Field(
        description="distinct users who joined, left, chatted or donated in the minute", examples=[230]
    )
    active_viewers: Count = Field(description="viewers present at the end of the minute", examples=[1850])


class TopRow(Measures):
    """One stream over the requested windows."""

    unique_viewers: Count = Field(description="the highest number of unique viewers in one minute", examples=[260])
    active_viewers: Count = Field(description="the highest number of active viewers at a minute's end", examples=[1870])


class StateRow(BaseModel):
    """Viewers who are present in one stream."""

    stream_id: StreamId
    active_viewers: Count = Field(description="viewers present just after the event clock", examples=[1850])
    updated_at: Instant | None = Field(
        description="the event clock, UTC, RFC 3339: the newest event time that was read; null before the first"
    )


class Metrics(BaseModel):
    """Rows of the newest windows."""

    latest_window_start: Instant | None = Field(
        description="start of the newest window of the whole table, UTC, RFC 3339; null while there is none"
    )
    rows: list[MetricsRow] = Field(description="newest window first, by stream_id inside a window")


class Latest(BaseModel):
    """The newest window of each stream."""

    rows: list[MetricsRow] = Field(description="by stream_id")


class History(BaseModel):
    """Rows of the newest windows, the oldest of them first."""

    rows: list[MetricsRow] = Field(description="oldest window first, by stream_id inside a window")


class State(BaseModel):
    """Viewers of each stream."""

    rows: list[StateRow] = Field(description="by stream_id")


class Top(BaseModel):
    """A ranking of streams."""

    rows: list[TopRow] = Field(description="highest first, equal ones by stream_id")


class Health(BaseModel):
    """PostgreSQL answers."""

    ok: bool = Field(examples=[True])
    warnings: list[str] = Field(
        default=[], description="left out while there are none", examples=[["the event clock is 900 s ahead"]]
    )


class Unhealthy(BaseModel):
    """PostgreSQL does not answer."""

    ok: bool = Field(examples=[False])
    error: str = Field(examples=["PostgreSQL does not answer: Connection refused"])


class Problem(BaseModel):
    """The reason for a refusal."""

    error: str = Field(description="one line", examples=["PostgreSQL does not answer: Connection refused"])


class BadParameter(BaseModel):
    """One rejected parameter."""

    parameter: str = Field(description="name of the parameter", examples=["minutes"])
    value: str | None = Field(description="the given value", examples=["5000"])
    allowed: str = Field(description="the allowed values", examples=["an integer from 1 to 1440"])


class BadRequest(BaseModel):
    """The rejected parameters with their allowed values."""

    error: str = Field(examples=["minutes: an integer from 1 to 1440, not '5000'"])
    parameters: list[BadParameter]
