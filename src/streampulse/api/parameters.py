"""What may be asked for: every parameter with its bounds. Unknown parameters are refused, so a typing error shows."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from streampulse.api.queries import Ranking
from streampulse.api.query import NOT_TEXT, REPEATED
from streampulse.events import MAX_ID_LENGTH

#: A day. Also the longest history of one stream in one answer.
MAX_MINUTES: Final = 1440
MAX_LIMIT: Final = 1000


def _plain_integer(value: Any) -> Any:
    # Without this, "1_0", "+5", " 5" and "5.0" would be read as integers as well.
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]{1,9}", value) is None:
            raise PydanticCustomError("int_parsing", "not an integer")
        return int(value)
    return value


Minutes = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_MINUTES,
        description="the last n one-minute windows of the whole table, the newest included; one without rows counts",
        examples=[10],
    ),
    BeforeValidator(_plain_integer),
]
Limit = Annotated[
    int,
    Field(ge=1, le=MAX_LIMIT, description="rows at most", examples=[100]),
    BeforeValidator(_plain_integer),
]
StreamName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_ID_LENGTH,
        pattern=r"^[^\x00]*$",
        description="only this stream; the only way to see one whose id begins with `__`",
        examples=["speedrun-lounge-1"],
    ),
]
After = Annotated[
    str,
    Field(
        max_length=MAX_ID_LENGTH,
        pattern=r"^[^\x00]*$",
        description="go on after this stream_id: the last one of the previous answer (order of code points)",
        examples=["speedrun-lounge-1"],
    ),
]

#: What a 422 answer says to what is wrong with a parameter whatever it is called, by the kind of the error.
OF_ALL: Final = {
    "extra_forbidden": "no such parameter here",
    NOT_TEXT: "text in UTF-8",
    REPEATED: "one value only",
}
#: What a 422 answer says may be given.
ALLOWED: Final = {
    "minutes": f"an integer from 1 to {MAX_MINUTES}",
    "limit": f"an integer from 1 to {MAX_LIMIT}",
    "n": f"an integer from 1 to {MAX_LIMIT}",
    "stream_id": f"1 to {MAX_ID_LENGTH} characters without U+0000",
    "after": f"at most {MAX_ID_LENGTH} characters without U+0000",
    "by": "one of chat_messages, donations, donations_usd, joins, leaves, unique_viewers, active_viewers",
}


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MetricsParameters(_Parameters):
    """Parameters of ``/metrics``."""

    minutes: Minutes = 10
    limit: Limit = 100
    stream_id: StreamName | SkipJsonSchema[None] = None


class HistoryParameters(_Parameters):
    """Parameters of ``/metrics/history``."""

    minutes: Minutes = 10
    limit: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_LIMIT,
            description="rows at most, the oldest of the span; with a stream_id and no limit: all of the span",
            examples=[100],
        ),
        BeforeValidator(_plain_integer),
    ] = MAX_LIMIT
    stream_id: StreamName | SkipJsonSchema[None] = None


class ListParameters(_Parameters):
    """Parameters of the lists by stream: ``/metrics/latest`` and ``/state``."""

    limit: Limit = 100
    after: After = ""
    stream_id: StreamName | SkipJsonSchema[None] = None


class LiveParameters(_Parameters):
    """``/live`` takes none."""


class TopParameters(_Parameters):
    """Parameters of ``/streams/top``."""

    minutes: Minutes = 10
    by: Annotated[Ranking, Field(description="what is ranked: sums over the windows, for viewers the maximum")] = (
        "donations_usd"
    )
    n: Annotated[
        int,
        Field(ge=1, le=MAX_LIMIT, description="streams at most", examples=[5]),
        BeforeValidator(_plain_integer),
    ] = 5
