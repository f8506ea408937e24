"""A second reading of the event contract, written from the design's text alone: slow, by hand, no json, no re.

It says valid (an Event) or not (None). Which field a fault is blamed on is for the tables of examples to say.
"""

from __future__ import annotations

import datetime
from fractions import Fraction

from streampulse.events import Event

DIGITS = "0123456789"
HEX = DIGITS + "abcdefABCDEF"
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Refused(Exception):  # noqa: N818 - a verdict
    """Not what the contract asks for."""


class Number(str):
    """A number's text."""

    __slots__ = ()


class Reader:
    """RFC 8259, one character at a time."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> None:
        if not self.text.startswith(wanted, self.at):
            raise Refused
        self.at += len(wanted)

    def blanks(self) -> None:
        while self.peek() in (" ", "\t", "\n", "\r"):
            self.at += 1

    def document(self) -> object:
        self.blanks()
        value = self.value(0)
        self.blanks()
        if self.at != len(self.text):
            raise Refused
        return value

    def value(self, depth: int) -> object:
        first = self.peek()
        if first == "{":
            return self.members(depth + 1)
        if first == "[":
            return self.items(depth + 1)
        if first == '"':
            return self.string()
        for word, meaning in (("true", True), ("false", False), ("null", None)):
            if first == word[0]:
                self.take(word)
                return meaning
        return self.number()

    def members(self, depth: int) -> dict[str, object]:
        if depth > 100:
            raise Refused
        members: dict[str, object] = {}
        self.take("{")
        self.blanks()
        if self.peek() == "}":
            self.take("}")
            return members
        while True:
            self.blanks()
            name = self.string()
            self.blanks()
            self.take(":")
            self.blanks()
            members[name] = self.value(depth)
            self.blanks()
            if self.peek() != ",":
                self.take("}")
                return members
            self.take(",")

    def items(self, depth: int) -> list[object]:
        if depth > 100:
            raise Refused
        members: list[object] = []
        self.take("[")
        self.blanks()
        if self.peek() == "]":
            self.take("]")
            return members
        while True:
            self.blanks()
            members.append(self.value(depth))
            self.blanks()
            if self.peek() != ",":
                self.take("]")
                return members
            self.take(",")

    def unit(self) -> int:
        digits = self.text[self.at : self.at + 4]
        if len(digits) != 4 or any(digit not in HEX for digit in digits):
            raise Refused
        self.at += 4
        return int(digits, 16)

    def string(self) -> str:
        self.take('"')
        read: list[str] = []
        while True:
            each = self.peek()
            if each == "" or each < " ":
                raise Refused
            self.at += 1
            if each == '"':
                return "".join(read)
            if each != "\\":
                read.append(each)
                continue
            kind = self.peek()
            self.at += 1
            if kind != "u":
                if kind not in ESCAPES:
                    raise Refused
                read.append(ESCAPES[kind])
                continue
            high = self.unit()
            if 0xD800 <= high < 0xDC00 and self.text.startswith("\\u", self.at):
                before = self.at
                self.at += 2
                low = self.unit()
                if 0xDC00 <= low < 0xE000:
                    read.append(chr(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00))
                    continue
                self.at = before
            read.append(chr(high))

    def digits(self) -> int:
        count = 0
        while self.peek() != "" and self.peek() in DIGITS:
            self.at += 1
            count += 1
        if count == 0:
            raise Refused
        return count

    def number(self) -> Number:
        begin = self.at
        if self.peek() == "-":
            self.at += 1
        whole = 1
        if self.peek() == "0":
            self.at += 1
        else:
            whole = self.digits()
        integer = True
        if self.peek() == ".":
            integer = False
            self.at += 1
            self.digits()
        if self.peek() in ("e", "E"):
            integer = False
            self.at += 1
            if self.peek() in ("+", "-"):
                self.at += 1
            self.digits()
        if integer and whole > 4000:
            raise Refused
        return Number(self.text[begin : self.at])


def split_number(text: str, *, leading_zeros: bool) -> tuple[bool, str, str, int]:
    r"""Return sign, whole digits, fraction digits and exponent of ``-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?``."""
    reader = Reader(text)
    negative = reader.peek() == "-"
    if negative:
        reader.at += 1
    begin = reader.at
    reader.digits()
    whole, fraction, exponent = text[begin : reader.at], "", 0
    if not leading_zeros and len(whole) > 1 and whole[0] == "0":
        raise Refused
    if reader.peek() == ".":
        reader.at += 1
        begin = reader.at
        reader.digits()
        fraction = text[begin : reader.at]
    if reader.peek() in ("e", "E"):
        reader.at += 1
        begin = reader.at
        if reader.peek() in ("+", "-"):
            reader.at += 1
        reader.digits()
        exponent = int(text[begin : reader.at])
    if reader.at != len(text):
        raise Refused
    return negative, whole, fraction, exponent


def cents_of(text: str) -> int:
    negative, whole, fraction, exponent = split_number(text, leading_zeros=True)
    value = Fraction(int(whole + fraction), 10 ** len(fraction)) * Fraction(10) ** exponent * (-1 if negative else 1)
    cents = value * 100
    if cents.denominator != 1 or not 0 <= cents <= 10**11:
        raise Refused
    return int(cents)


def two_digits(text: str) -> int:
    if len(text) != 2 or text[0] not in DIGITS or text[1] not in DIGITS:
        raise Refused
    return int(text)


def instant_of(text: str) -> int:
    if len(text) < 20 or any(text[at] != mark for at, mark in ((4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":"))):
        raise Refused
    year = two_digits(text[0:2]) * 100 + two_digits(text[2:4])
    month, day, hour, minute, second = (two_digits(text[at : at + 2]) for at in (5, 8, 11, 14, 17))
    rest, micros = text[19:], 0
    if rest.startswith("."):
        count = 0
        while count + 1 < len(rest) and rest[count + 1] in DIGITS:
            count += 1
        if not 1 <= count <= 6:
            raise Refused
        micros = int(rest[1 : count + 1]) * 10 ** (6 - count)
        rest = rest[count + 1 :]
    offset = datetime.timedelta(0)
    if rest != "Z":
        if len(rest) != 6 or rest[0] not in "+-" or rest[3] != ":":
            raise Refused
        hours, minutes = two_digits(rest[1:3]), two_digits(rest[4:6])
        if hours > 23 or minutes > 59:
            raise Refused
        offset = datetime.timedelta(hours=hours, minutes=minutes) * (-1 if rest[0] == "-" else 1)
    try:
        local = datetime.datetime(year, month, day, hour, minute, second, micros)  # noqa: DTZ001 - offset taken off below
    except ValueError:
        raise Refused from None
    since = local - datetime.datetime(1970, 1, 1) - offset  # noqa: DTZ001 - as above
    instant = since // datetime.timedelta(microseconds=1)
    if since < datetime.datetime(2000, 1, 1) - datetime.datetime(1970, 1, 1):  # noqa: DTZ001 - as above
        raise Refused
    return instant


def text_of(document: dict[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or isinstance(value, Number):
        raise Refused
    return value


def identifier_of(document: dict[str, object], name: str) -> str:
    value = text_of(document, name)
    if not 1 <= len(value) <= 128 or any(each == "\0" or 0xD800 <= ord(each) <= 0xDFFF for each in value):
        raise Refused
    return value


def event_id_of(document: dict[str, object]) -> str:
    event_id = text_of(document, "event_id")
    if len(event_id) != 36:
        raise Refused
    for at, each in enumerate(event_id):
        if each not in ("-" if at in (8, 13, 18, 23) else HEX):
            raise Refused
    return event_id.lower()


def check_length(length: object) -> None:
    if not isinstance(length, Number) or any(each in length for each in ".eE"):
        raise Refused
    if not 0 <= int(length) <= 2**31 - 1:
        raise Refused


def amount_of(document: dict[str, object]) -> int:
    amount = document["amount_usd"] if "amount_usd" in document else document.get("amount")
    if not isinstance(amount, str):
        raise Refused
    return cents_of(str(amount))


def read(value: bytes | None) -> Event:
    """Read a record's value, key and partition aside; raise Refused when it is no event."""
    if not value:
        raise Refused
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused from None
    document = Reader(text).document()
    if not isinstance(document, dict):
        raise Refused
    kind = text_of(document, "event_type")
    if kind not in ("stream_start", "stream_stop", "viewer_join", "viewer_leave", "chat_message", "donation"):
        raise Refused
    if kind == "chat_message":
        check_length(document.get("message_len"))
    return Event(
        identifier_of(document, "stream_id"),
        identifier_of(document, "user_id"),
        event_id_of(document),
        instant_of(text_of(document, "ts")),
        kind,
        amount_of(document) if kind == "donation" else None,
    )


def read_or_none(value: bytes | None) -> Event | None:
    try:
        return read(value)
    except Refused:
        return None
