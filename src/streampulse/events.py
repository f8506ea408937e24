"""The event contract: which records of ``stream.events`` count, and how they are parsed.

This module defines the contract and favours exactness over speed. The streaming job has a faster path for the common
form of an event (``streampulse.job.decode``) and falls back to :func:`parse` for all others. A property test checks
that both give the same answer for every record.
"""

import datetime
import json
import re
from typing import Final, NamedTuple, NoReturn

EVENT_TYPES: Final = ("stream_start", "stream_stop", "viewer_join", "viewer_leave", "chat_message", "donation")

#: A record with a time stamp more than this before its partition's clock is late. Duplicates are searched within the
#: same span. Microseconds.
ALLOWED_LATENESS_US: Final = 10 * 60 * 1_000_000
#: A record with a time stamp more than this after its arrival is from the future. Microseconds.
ALLOWED_FUTURE_US: Final = 5 * 60 * 1_000_000
#: Id prefix of internal streams. They move no clock but their own.
INTERNAL_PREFIX: Final = "__"

#: Bytes of a record's key and value together, uncompressed. No larger record is parsed.
MAX_RECORD_BYTES: Final = 262_144
#: Bytes that a batch of records may unpack to; see docs/decisions/0046-what-bounds-the-memory-of-reading.md.
MAX_BATCH_BYTES: Final = 288 * 1024 * 1024
#: A larger record's dead letter has this many bytes of its key and of its value.
CUT_BYTES: Final = 65_536

MAX_DEPTH: Final = 100
MAX_INTEGER_DIGITS: Final = 4_000
MAX_ID_LENGTH: Final = 128
MAX_MESSAGE_LEN: Final = 2**31 - 1
MAX_AMOUNT_CENTS: Final = 10**9 * 100
#: 2000-01-01T00:00:00Z in microseconds since the epoch.
EARLIEST_TS_US: Final = 946_684_800 * 1_000_000

_EPOCH_ORDINAL = datetime.date(1970, 1, 1).toordinal()
_EVENT_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_TS = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_AMOUNT_TEXT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_PARTS = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_MESSAGE_LEN = re.compile(r"-?[0-9]+")
# An unclosed string matches to the end of the text, so that each character is read only once.
_STRING_LITERAL = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_FORBIDDEN_IN_ID = re.compile("[\x00\ud800-\udfff]")


class InvalidEvent(Exception):  # noqa: N818 - the contract's word for it is "invalid", not "error"
    """The record is not a valid event.

    ``detail`` begins with the field at fault: a field's name, ``key``, ``partition`` or ``value``.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Event(NamedTuple):
    """One valid event.

    ``event_id`` is the UUID's lower-case text. ``ts_us`` is the event time in microseconds since the epoch (UTC).
    ``amount_cents`` is the donation in hundredths of a dollar, None for the other types.
    """

    stream_id: str
    user_id: str
    event_id: str
    ts_us: int
    event_type: str
    amount_cents: int | None


class _Number:
    """A JSON number kept as its text, so that no digit is lost before validation."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _integer(text: str) -> _Number:
    if len(text) - text.startswith("-") > MAX_INTEGER_DIGITS:
        raise InvalidEvent(f"value: an integer of more than {MAX_INTEGER_DIGITS} digits")
    return _Number(text)


def _constant(name: str) -> NoReturn:
    raise InvalidEvent(f"value: not JSON, {name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_Number, parse_constant=_constant, strict=True)


def _deeper_than_allowed(text: str) -> bool:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING_LITERAL.sub("", text)):
        depth += 1 if bracket in "{[" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def parse_object(value: bytes | None) -> dict[str, object]:
    """Parse a record's value strictly as one JSON object (RFC 8259). The last of duplicate names wins.

    Numbers are returned as their text in an opaque wrapper. The outermost object is level 1 of the allowed 100.

    :raises InvalidEvent: the value is absent, not UTF-8, not JSON, too deep, holds too long an integer, or is not an
        object.
    """
    if not value:
        raise InvalidEvent("value: empty")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"value: not UTF-8 at byte {error.start}") from None
    if _deeper_than_allowed(text):
        raise InvalidEvent(f"value: deeper than {MAX_DEPTH} levels")
    stripped = text.strip(" \t\r\n")
    try:
        document, end = _DECODER.raw_decode(stripped)
    except json.JSONDecodeError as error:
        raise InvalidEvent(f"value: not JSON, {error.msg.lower()} at character {error.pos}") from None
    except RecursionError:
        # Reached only by text that stops being JSON before its brackets are counted.
        raise InvalidEvent(f"value: deeper than {MAX_DEPTH} levels") from None
    if end != len(stripped):
        raise InvalidEvent("value: not JSON, something follows the object")
    if not isinstance(document, dict):
        raise InvalidEvent("value: not a JSON object")
    return document


def parse_ts(text: str) -> int:
    """Return the instant of an event's ``ts`` in microseconds since the epoch.

    :raises InvalidEvent: the text has another form, is not a real date and time, or is before the year 2000 (UTC).
    """
    match = _TS.fullmatch(text)
    if match is None:
        raise InvalidEvent("ts: not of the form YYYY-MM-DDTHH:MM:SS[.f{1,6}](Z|+HH:MM|-HH:MM)")
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    if hour > 23 or minute > 59 or second > 59:
        raise InvalidEvent("ts: not a real time of day")
    try:
        ordinal = datetime.date(year, month, day).toordinal()
    except ValueError:
        raise InvalidEvent("ts: not a real date") from None
    offset_minutes = 0
    if match.group(8) is not None:
        offset_hour, offset_minute = int(match.group(9)), int(match.group(10))
        if offset_hour > 23 or offset_minute > 59:
            raise InvalidEvent("ts: the offset is not a real one")
        offset_minutes = offset_hour * 60 + offset_minute
        if match.group(8) == "-":
            offset_minutes = -offset_minutes
    seconds = (ordinal - _EPOCH_ORDINAL) * 86_400 + hour * 3_600 + (minute - offset_minutes) * 60 + second
    ts_us = seconds * 1_000_000 + int((match.group(7) or "").ljust(6, "0"))
    if ts_us < EARLIEST_TS_US:
        raise InvalidEvent("ts: before the year 2000")
    return ts_us


def parse_amount(text: str) -> int | None:
    """Return a decimal number's value in hundredths, or None if it is not a valid amount.

    An amount is between 0 and 10^9 and has a value of at most two decimal places, in any notation. The work is bounded
    by the length of the text: ``1e999999999`` costs no more than ``1e2``.
    """
    match = _NUMBER_PARTS.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent_text = match.groups(default="")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    if sign:
        return None
    significant = digits.rstrip("0")
    exponent_digits = exponent_text.lstrip("+-").lstrip("0")
    if len(exponent_digits) > 9:  # longer than any record can compensate with digits
        return None
    exponent = int(exponent_digits or "0")
    if exponent_text.startswith("-"):
        exponent = -exponent
    # value = significant * 10 ** scale; hundredths = significant * 10 ** (scale + 2)
    scale = len(digits) - len(significant) - len(fraction) + exponent + 2
    if scale < 0 or len(significant) + scale > len(str(MAX_AMOUNT_CENTS)):
        return None
    cents = int(significant) * 10**scale
    return cents if cents <= MAX_AMOUNT_CENTS else None


def _text(document: dict[str, object], field: str) -> str:
    value = document.get(field)
    if not isinstance(value, str):
        raise InvalidEvent(f"{field}: {'missing' if field not in document else 'not a string'}")
    return value


def _identifier(document: dict[str, object], field: str) -> str:
    value = _text(document, field)
    if not 1 <= len(value) <= MAX_ID_LENGTH:
        raise InvalidEvent(f"{field}: not of 1 to {MAX_ID_LENGTH} characters")
    if _FORBIDDEN_IN_ID.search(value):
        raise InvalidEvent(f"{field}: holds U+0000 or a lone surrogate")
    return value


def _check_message_len(document: dict[str, object]) -> None:
    value = document.get("message_len")
    if "message_len" not in document:
        raise InvalidEvent("message_len: missing")
    if not isinstance(value, _Number) or not _MESSAGE_LEN.fullmatch(value.text):
        raise InvalidEvent("message_len: not an integer")
    if not 0 <= int(value.text) <= MAX_MESSAGE_LEN:
        raise InvalidEvent(f"message_len: not from 0 to {MAX_MESSAGE_LEN}")


def _amount_cents(document: dict[str, object]) -> int:
    field = "amount" if "amount_usd" not in document and "amount" in document else "amount_usd"
    if field not in document:
        raise InvalidEvent("amount_usd: missing")
    value = document[field]
    if isinstance(value, _Number):
        text = value.text
    elif isinstance(value, str) and _AMOUNT_TEXT.fullmatch(value):
        text = value
    else:
        raise InvalidEvent(f"{field}: not a number")
    cents = parse_amount(text)
    if cents is None:
        raise InvalidEvent(f"{field}: not from 0 to 1000000000 with at most two decimal places")
    return cents


def murmur2(data: bytes) -> int:
    """Return the 32-bit Murmur2 hash of a record's key as Kafka's own clients compute it, as an unsigned number.

    Source: ``org.apache.kafka.common.utils.Utils.murmur2`` (seed 0x9747b28c), after Austin Appleby's MurmurHash2.
    """
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    length = len(data)
    value = (0x9747B28C ^ length) & mask
    whole = length & ~3
    for position in range(0, whole, 4):
        word = int.from_bytes(data[position : position + 4], "little") * multiplier & mask
        word = (word ^ (word >> 24)) * multiplier & mask
        value = (value * multiplier & mask) ^ word
    if length & 3:
        value ^= int.from_bytes(data[whole:], "little")
        value = value * multiplier & mask
    value = (value ^ (value >> 13)) * multiplier & mask
    return value ^ (value >> 15)


def is_valid(key: bytes | None, value: bytes | None, partition: int, partitions: int) -> bool:
    """Tell whether a record is an event; the parameters are those of :func:`parse`."""
    try:
        parse(key, value, partition, partitions)
    except InvalidEvent:
        return False
    return True


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's own clients choose for a key in a topic of ``partitions`` partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def parse(key: bytes | None, value: bytes | None, partition: int, partitions: int) -> Event:
    """Parse one record as an event.

    :param key: the record's key, or None.
    :param value: the record's value, or None.
    :param partition: the partition that the record was read from, 0-based.
    :param partitions: number of partitions of the topic.
    :raises InvalidEvent: the record breaks a rule of the contract; ``detail`` begins with a field's name, ``value`` for
        the JSON text itself, ``key`` or ``partition``.
    """
    if is_too_large(key, value):
        raise InvalidEvent(f"value: larger than {MAX_RECORD_BYTES} bytes")
    document = parse_object(value)
    event_id = _text(document, "event_id")
    if not _EVENT_ID.fullmatch(event_id):
        raise InvalidEvent("event_id: not a UUID of 36 characters")
    ts_us = parse_ts(_text(document, "ts"))
    event_type = _text(document, "event_type")
    if event_type not in EVENT_TYPES:
        raise InvalidEvent("event_type: not one of " + ", ".join(EVENT_TYPES))
    stream_id = _identifier(document, "stream_id")
    user_id = _identifier(document, "user_id")
    amount_cents = None
    if event_type == "chat_message":
        _check_message_len(document)
    elif event_type == "donation":
        amount_cents = _amount_cents(document)
    if key != stream_id.encode():
        raise InvalidEvent("key: not the stream_id")
    if partition_of(key, partitions) != partition:
        raise InvalidEvent("partition: not the one of the key, murmur2(key) mod the number of partitions")
    return Event(stream_id, user_id, event_id.lower(), ts_us, event_type, amount_cents)


def is_too_large(key: bytes | None, value: bytes | None) -> bool:
    """Tell whether a record is larger than the contract allows."""
    return len(key or b"") + len(value or b"") > MAX_RECORD_BYTES


def letter_bytes(key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None]:
    """Return the key and value of a record's dead letter: the record's own, cut where the record is too large."""
    if not is_too_large(key, value):
        return key, value
    return key and key[:CUT_BYTES], value and value[:CUT_BYTES]


def is_internal(stream_id: str) -> bool:
    """Tell whether a stream is internal (smoke tests, probes)."""
    return stream_id.startswith(INTERNAL_PREFIX)
