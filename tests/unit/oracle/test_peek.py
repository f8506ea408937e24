"""Peek: every record is printed as plain text."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampulse.host.peek import SHOWN_CHARACTERS, printable, shown


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "(null)"), (b"", "(empty)"), (b'{"a": 1}', '{"a": 1}'),
        ("ünïcode \U0001f600".encode(), "ünïcode \U0001f600"), (b"\xff\x00", r"\xff\x00"),
        (b"\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"), (b"a\r\nb\tc", r"a\r\nb\tc"),
        ("\u202eevil\u2028".encode(), r"\u202eevil\u2028"), (b"\x9b31m", r"\x9b31m"), ("\x9b31m".encode(), r"\x9b31m"),
    ],
)  # fmt: skip
def test_bytes_are_shown_safely(data: bytes | None, expected: str) -> None:
    assert printable(data) == expected


def test_long_values_are_cut_and_say_so() -> None:
    assert printable(b"x" * SHOWN_CHARACTERS) == "x" * SHOWN_CHARACTERS
    assert printable(b"x" * 200_000) == "x" * SHOWN_CHARACTERS + " ... (200,000 bytes)"
    assert printable("é".encode() * SHOWN_CHARACTERS) == "é" * SHOWN_CHARACTERS
    assert printable("\U0001f600".encode() * 5000) == "\U0001f600" * SHOWN_CHARACTERS + " ... (20,000 bytes)"


@given(st.binary(max_size=200))
def test_nothing_but_plain_characters_is_printed(data: bytes) -> None:
    assert printable(data).isprintable()


def test_a_record_is_shown_with_where_when_key_headers_and_value() -> None:
    record = SimpleNamespace(
        partition=2,
        offset=7,
        timestamp=1_772_366_400_123,
        key=b"s",
        value=b"{}",
        serialized_value_size=2,
        headers=[("reason", b"late"), ("x", None)],
    )
    assert shown(record).splitlines() == [
        "partition 2 offset 7 at 2026-03-01T12:00:00.123Z key s",
        "  reason: late",
        "  x: (null)",
        "  {}",
    ]
