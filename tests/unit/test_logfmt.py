"""No value of a log line can pretend to be another line or another pair."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from streampulse.logfmt import LogfmtFormatter, pair


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "k=plain"),
        (3, "k=3"),
        ("", 'k=""'),
        ("two words", 'k="two words"'),
        ("a=b", 'k="a=b"'),
        ('say "hi"', 'k="say \\"hi\\""'),
        ("back\\slash", 'k="back\\\\slash"'),
        ("line\nlevel=error", 'k="line\\nlevel=error"'),
        ("nul\x00esc\x1b", 'k="nul\\u0000esc\\u001b"'),
        ("line\u2028separator", 'k="line\\u2028separator"'),
        ("\ud800", 'k="\\ud800"'),
        ("\u00e9\U0001f600", "k=\u00e9\U0001f600"),
    ],
)
def test_values_are_quoted_where_needed(value: object, text: str) -> None:
    assert pair("k", value) == text
    assert "\n" not in text


def test_a_record_is_one_line_also_with_an_exception() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogfmtFormatter())
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("name", logging.ERROR, "file", 1, "it %s", ("broke",), sys.exc_info())
    record.fields = {"stream": "a b"}
    handler.emit(record)
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert 'level=error logger=name msg="it broke" stream="a b" exception="Traceback' in line
