"""The quick way to read an event: a typed decoder for the common form, in a few microseconds.

It also reads events with fields that the contract does not know. It returns None for every record that is not plainly
of the common form; :func:`streampulse.events.parse` decides about those. It therefore never rejects a record, and it
accepts none that the contract would not.
"""

import re

import msgspec

from streampulse import events
from streampulse.events import MAX_ID_LENGTH, MAX_INTEGER_DIGITS, MAX_MESSAGE_LEN
from streampulse.job.rows import CHAT_MESSAGE, DONATION, EVENT_ID_BYTES

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
_PLAIN_AMOUNT = re.compile(rb'(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,2})?|"[0-9]{1,9}(?:\.[0-9]{1,2})?"')
_PLAIN_LENGTH = re.compile(rb"0|[1-9][0-9]{0,9}")
_FORBIDDEN_IN_ID = re.compile("[\x00\ud800-\udfff]")
#: Entries kept in a cache of texts. Few are needed in practice, and hostile input cannot add more.
CACHE_LIMIT = 200_000
_ABSENT = msgspec.Raw(b"")


class AnyEvent(msgspec.Struct, gc=False):
    """The common form with any other fields, of which the typed decoder only finds the end."""

    event_id: str
    ts: str
    event_type: str
    stream_id: str
    user_id: str
    # Numbers stay text until a strict pattern has looked at them.
    message_len: msgspec.Raw = _ABSENT
    amount_usd: msgspec.Raw = _ABSENT


class _PlainEvent(AnyEvent, forbid_unknown_fields=True, gc=False):
    """The common form: the contract's own fields and no others."""


class PlainReader:
    """Reads values of the common form, with caches that serve one batch."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_PlainEvent).decode
        self._decode_any = msgspec.json.Decoder(AnyEvent).decode
        # Whether the last plain record had fields that the contract does not know: the next one most likely has, too.
        self._others = False
        self._minutes: dict[str, int] = {}
        self._lengths: set[bytes] = set()

    def typed(self, value: bytes | None) -> AnyEvent | None:
        """Read a value that is simple JSON with the contract's fields in their types, or return None."""
        if value is None or len(value) > MAX_INTEGER_DIGITS:
            return None
        if not self._others and _is_flat(value):
            try:
                return self._decode(value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
        self._others = _SIMPLE_OBJECT.fullmatch(value) is not None and _is_utf8(value)
        if self._others:
            try:
                return self._decode_any(value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._others = False
        return None

    def cents(self, event: AnyEvent, code: int) -> int | None:
        """Return the donation in cents (0 for other types), or None when a number is not of the plainest form."""
        amount, length = event.amount_usd, event.message_len
        if (amount is _ABSENT) is (code == DONATION):
            return None
        if length is _ABSENT:
            if code == CHAT_MESSAGE:
                return None
        else:
            text = bytes(length)
            if text not in self._lengths:
                if _PLAIN_LENGTH.fullmatch(text) is None or int(text) > MAX_MESSAGE_LEN:
                    return None
                if len(self._lengths) < CACHE_LIMIT:
                    self._lengths.add(text)
        if amount is _ABSENT:
            return 0
        text = bytes(amount)
        return None if _PLAIN_AMOUNT.fullmatch(text) is None else _plain_cents(text.strip(b'"'))

    def ts_us(self, text: str) -> int | None:
        """Return a time in microseconds since the epoch, or None when it is not of the plainest form."""
        # YYYY-MM-DDTHH:MM is looked up; :SS.ffffffZ is read: most events of a batch fall into the same few minutes.
        rest = text[16:]
        length = len(rest)
        if length < 4 or length > 11 or length == 5 or rest[0] != ":" or rest[-1] != "Z" or not rest.isascii():
            return None
        if length > 4 and rest[3] != ".":
            return None
        digits = rest[1:3] + rest[4:-1]
        if not digits.isdigit():
            return None
        within = int(digits.ljust(8, "0"))
        if within >= 60_000_000:
            return None
        minute = text[:16]
        start = self._minutes.get(minute)
        if start is None:
            try:
                start = events.parse_ts(minute + ":00Z")
            except events.InvalidEvent:
                return None
            if len(self._minutes) >= CACHE_LIMIT:
                self._minutes.clear()
            self._minutes[minute] = start
        return start + within


def _is_flat(value: bytes) -> bool:
    """Tell whether a value, not too long, can hold none of what the typed decoder does not look at.

    It passes over the earlier ones of a repeated name unread, so they must not be able to nest, to hold an integer of
    too many digits or bytes that are not UTF-8; and no escape may hide a lone surrogate.
    """
    return b"\\" not in value and b"[" not in value and value.count(b"{") == 1 and _is_utf8(value)


def _is_utf8(value: bytes) -> bool:
    if value.isascii():
        return True
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def plain_event_id(text: str) -> bytes | None:
    """Return a UUID of 36 characters as its 16 bytes, None where it is none."""
    if len(text) != 36 or not text[8] == text[13] == text[18] == text[23] == "-":
        return None
    try:
        # Anything but 32 digits between those four hyphens is an error or, as white space may be left out, too short.
        event_id = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    return event_id if len(event_id) == EVENT_ID_BYTES else None


def is_plain_user(user_id: str) -> bool:
    """Tell whether a user id keeps the contract's rules."""
    if not 1 <= len(user_id) <= MAX_ID_LENGTH or "\x00" in user_id:
        return False
    return user_id.isascii() or _FORBIDDEN_IN_ID.search(user_id) is None


def _plain_cents(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    return int(whole) * 100 + int(fraction.ljust(2, b"0"))
