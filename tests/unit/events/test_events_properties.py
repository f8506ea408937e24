"""The event contract over generated records: good events keep their values, anything else is blamed on a field."""

import datetime
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from streampulse.events import EVENT_TYPES, Event, InvalidEvent, parse, partition_of

# Naive: it becomes text, to which an offset is added.
EARLIEST = datetime.datetime(2000, 1, 2)  # noqa: DTZ001
EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - as above
#: Offsets of time zones as they are written, in minutes.
OFFSETS = {"Z": 0, "+00:00": 0, "-23:59": -(23 * 60 + 59), "+12:45": 12 * 60 + 45}
NAMES = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=128)
#: What can be blamed; None: nothing.
FIELDS = {
    None, "value", "key", "partition", "event_id", "ts", "event_type", "stream_id", "user_id", "message_len",
    "amount_usd", "amount",
}  # fmt: skip


@st.composite
def good_events(draw: st.DrawFn) -> tuple[bytes, Event]:
    """Make a valid event: its bytes, and what they mean."""
    moment, offset = draw(st.datetimes(min_value=EARLIEST)), draw(st.sampled_from(sorted(OFFSETS)))
    kind, cents, event_id = draw(st.sampled_from(sorted(EVENT_TYPES))), draw(st.integers(0, 10**11)), draw(st.uuids())
    stream, user = draw(NAMES), draw(NAMES)
    fields = {
        "event_id": draw(st.sampled_from([str(event_id), str(event_id).upper()])),
        "ts": moment.isoformat() + offset,
        "event_type": kind,
        "stream_id": stream,
        "user_id": user,
        "message_len": draw(st.integers(0, 2**31 - 1)),
        "amount_usd": f"{cents // 100}.{cents % 100:02d}",
    }
    names = draw(st.permutations(sorted(fields)))
    value = json.dumps({name: fields[name] for name in names}, ensure_ascii=draw(st.booleans()))
    ts_us = (moment - EPOCH) // datetime.timedelta(microseconds=1) - OFFSETS[offset] * 60_000_000
    meant = Event(stream, user, str(event_id), ts_us, kind, cents if kind == "donation" else None)
    return value.encode(), meant


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Make a record with a few bytes put in, taken out or changed."""
    value = bytearray(draw(good_events())[0])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value) - 1))
        byte = draw(st.sampled_from(b'"\\{}[],:0123456789.eE+-TZ \n\x00\x7f\x80\xc3\xed\xf0u') | st.integers(0, 255))
        value[at : at + draw(st.integers(0, 1))] = draw(st.sampled_from([b"", bytes([byte])]))
    return bytes(value)


def read(value: bytes, stream_id: str) -> Event:
    return parse(stream_id.encode(), value, partition_of(stream_id.encode(), 4), 4)


@settings(max_examples=300, deadline=None)
@given(good_events())
def test_a_good_event_is_read_as_it_was_made(made: tuple[bytes, Event]) -> None:
    value, meant = made
    assert read(value, meant.stream_id) == meant


@settings(max_examples=600, deadline=None)
@given(damaged() | st.binary(max_size=60))
@example(b'{"event_id":"","event_id":1}')
def test_anything_else_is_an_event_or_blamed_on_a_field(value: bytes) -> None:
    blamed = None
    try:
        read(value, "s")
    except InvalidEvent as error:
        blamed = error.detail.partition(":")[0]
    assert blamed in FIELDS
