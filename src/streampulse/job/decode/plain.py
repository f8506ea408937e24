"""The quick way to read events: one typed call decodes a chunk of records of the common form.

It also reads events with fields that the contract does not know. It returns None for every chunk with a record that is
not plainly of the common form; :func:`streampulse.events.parse` decides about such a record. It therefore never rejects
a record, and it accepts none that the contract would not.
"""

import re
from collections.abc import Callable, Sequence
from struct import iter_unpack
from typing import Annotated, NamedTuple

import msgspec

from streampulse import events
from streampulse.events import MAX_ID_LENGTH, MAX_INTEGER_DIGITS, MAX_MESSAGE_LEN
from streampulse.job.counting.changes import WINDOW_US
from streampulse.job.rows import CHAT_MESSAGE, DONATION, EVENT_ID_BYTES, TYPE_CODES

# JSON after RFC 8259, without escapes: an object whose values nest once at most. Nothing is looked at twice.
_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"[^"\\\x00-\x1f]*+"'
_SCALAR = rb"(?:" + _STRING + rb"|-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+|true|false|null)"


def _separated(member: bytes) -> bytes:
    return rb"(?:" + _SPACE + member + _SPACE + rb"(?:," + _SPACE + member + _SPACE + rb")*+|" + _SPACE + rb")"


def _object_of(value: bytes) -> bytes:
    return rb"\{" + _separated(_STRING + _SPACE + rb":" + _SPACE + value) + rb"\}"


_INNER = rb"(?:" + _SCALAR + rb"|\[" + _separated(_SCALAR) + rb"\]|" + _object_of(_SCALAR) + rb")"
_SIMPLE_OBJECT = re.compile(_SPACE + _object_of(_INNER) + _SPACE)
# What is left of a value and a newline when all bytes but these are deleted: see _is_flat.
_FLAT = b"{}\n"
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"{}[\\\n"))
_PLAIN_AMOUNT = re.compile(rb'(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,2})?|"[0-9]{1,9}(?:\.[0-9]{1,2})?"')
_PLAIN_TIME = re.compile(rb"0000-00-00T00:00:00(?:\.0{1,6})?Z ")
_DIGITS_AS_ZERO = bytes.maketrans(b"0123456789", b"0" * 10)
_HEX_AS_ZERO = bytes.maketrans(b"0123456789abcdefABCDEF", b"0" * 22)
_PLAIN_ID = b"00000000-0000-0000-0000-000000000000 "
_ABSENT = msgspec.Raw(b"")


class AnyEvent(msgspec.Struct, gc=False):
    """The common form with any other fields, of which the typed decoder only finds the end."""

    event_id: str
    ts: str
    event_type: str
    stream_id: str
    # Without escapes a JSON string has neither U+0000 nor lone surrogates.
    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
    message_len: Annotated[int, msgspec.Meta(ge=0, le=MAX_MESSAGE_LEN)] = -1
    # The number stays text until a strict pattern has looked at it.
    amount_usd: msgspec.Raw = _ABSENT
    amount: msgspec.Raw = _ABSENT


class _PlainEvent(AnyEvent, forbid_unknown_fields=True, gc=False):
    """The common form: the contract's own fields and no others."""


class Events(NamedTuple):
    """Events in columns of equal length. ``event_ids`` has 16 bytes for each, ``ts_us`` is in microseconds."""

    stream_ids: Sequence[str]
    user_ids: Sequence[str]
    event_ids: bytes
    ts_us: list[int]
    codes: list[int]
    cents: list[int]

    def part(self, rows: slice) -> "Events":
        """Return some of the events. The slice has both bounds."""
        ids = self.event_ids[rows.start * EVENT_ID_BYTES : rows.stop * EVENT_ID_BYTES]
        return Events(
            self.stream_ids[rows], self.user_ids[rows], ids, self.ts_us[rows], self.codes[rows], self.cents[rows]
        )


_decode_lines = msgspec.json.Decoder(_PlainEvent).decode_lines
_decode_any_lines = msgspec.json.Decoder(AnyEvent).decode_lines


def read(values: Sequence[bytes | None]) -> Events | None:
    """Read the values of records, or return None if one of them is not plainly of the common form."""
    found = _typed(values)
    if found is None:
        return None
    event_ids, times, types, stream_ids, user_ids, lengths, amounts, older = zip(
        *map(msgspec.structs.astuple, found), strict=True
    )
    if older.count(_ABSENT) < len(older):
        if any(_ABSENT not in pair for pair in zip(amounts, older, strict=True)):
            return None
        amounts = tuple(old if new is _ABSENT else new for new, old in zip(amounts, older, strict=True))
    try:
        codes = [TYPE_CODES[name] for name in types]
        ts_us = _ts_us(times)
    except (KeyError, events.InvalidEvent):
        return None
    if any(length < 0 and code == CHAT_MESSAGE for length, code in zip(lengths, codes, strict=True)):
        return None
    ids, cents = _event_ids(event_ids), _cents(codes, amounts)
    return None if ids is None or cents is None else Events(stream_ids, user_ids, ids, ts_us, codes, cents)


def may_be_plain(value: bytes | None) -> bool:
    """Tell whether a value is short and simple enough for the common form."""
    if value is None or len(value) > MAX_INTEGER_DIGITS:
        return False
    return _is_flat(value, 1) or _SIMPLE_OBJECT.fullmatch(value) is not None


def _typed(values: Sequence[bytes | None]) -> Sequence[AnyEvent] | None:
    """Read values that are simple JSON with the contract's fields in their types, or return None.

    They are read as lines of one text. Each line's event is that of its value alone, see :func:`_is_flat`.
    """
    present = [value for value in values if value is not None]
    # The decoder passes over the earlier ones of a repeated name unread, so they must not be able to nest, to hold an
    # integer of too many digits or bytes that are not UTF-8; and no escape may hide a lone surrogate. Values are only
    # joined while they are short: one may have 256 MB.
    if len(present) < len(values) or max(map(len, present)) > MAX_INTEGER_DIGITS:
        return None
    lines = b"\n".join(present)
    if not _is_utf8(lines):
        return None
    if _is_flat(lines, len(values)) and (found := _decoded(_decode_lines, lines, len(values))):
        return found
    # Each value is one object by itself, so no line can go on in the next one.
    if all(map(_SIMPLE_OBJECT.fullmatch, present)):
        return _decoded(_decode_any_lines, lines, len(values))
    return None


def _decoded(decode: Callable[[bytes], Sequence[AnyEvent]], lines: bytes, count: int) -> Sequence[AnyEvent] | None:
    try:
        found = decode(lines)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if len(found) == count else None


def _is_flat(lines: bytes, count: int) -> bool:
    """Tell whether each line has one brace of each kind, and neither brackets nor escapes.

    If such lines hold as many objects as there are lines, no brace is part of a string, and each object begins and ends
    in a line of its own with nothing but white space around it. So a line is no part of the object in another one.
    """
    return lines.translate(None, _NOT_STRUCTURE) + b"\n" == _FLAT * count


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _event_ids(texts: Sequence[str]) -> bytes | None:
    """Return UUIDs of 36 characters as 16 bytes each, None where a text is none."""
    text = " ".join(texts) + " "
    if text.encode().translate(_HEX_AS_ZERO) != _PLAIN_ID * len(texts):
        return None
    return bytes.fromhex(text.replace("-", ""))


def _ts_us(texts: Sequence[str]) -> list[int]:
    """Return times in microseconds since the epoch.

    :raises events.InvalidEvent: one is not valid.
    """
    text = b"%b " % " ".join(texts).encode()
    form = b"%b " % texts[0].encode().translate(_DIGITS_AS_ZERO)
    if _PLAIN_TIME.fullmatch(form) and text.translate(_DIGITS_AS_ZERO) == form * len(texts):
        # YYYY-MM-DDTHH:MM is looked up: most events of a chunk are of the same few minutes. SS.ffffff is read.
        digits = len(form.replace(b".", b"")) - 19
        found = list(iter_unpack(f"16sx{digits}s2x", text.replace(b".", b"")))
        starts = {minute: events.parse_ts(minute.decode() + ":00Z") for minute in {minute for minute, _ in found}}
        scale = 10 ** (8 - digits)
        within = [int(rest) * scale for _, rest in found]
        if max(within) < WINDOW_US:
            return [starts[minute] + us for (minute, _), us in zip(found, within, strict=True)]
    return [events.parse_ts(each) for each in texts]


def _cents(codes: Sequence[int], amounts: Sequence[msgspec.Raw]) -> list[int] | None:
    """Return the donations in cents (0 for other types), or None where an amount is not of the plainest form."""
    cents = [0] * len(codes)
    donations = [row for row, code in enumerate(codes) if code == DONATION]
    if amounts.count(_ABSENT) + len(donations) != len(codes):
        return None
    for row in donations:
        text = bytes(amounts[row])
        if _PLAIN_AMOUNT.fullmatch(text) is None:
            return None
        whole, _, fraction = text.strip(b'"').partition(b".")
        cents[row] = int(whole) * 100 + int(fraction.ljust(2, b"0"))
    return cents
