"""No value of a log line can pretend to be another line or another pair."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streampulse.core import logs as logfmt
from streampulse.core.logs import LogfmtFormatter, pair


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "k=plain"), (3, "k=3"), ("", 'k=""'), ("two words", 'k="two words"'), ("a=b", 'k="a=b"'),
        ('say "hi"', 'k="say \\"hi\\""'), ("back\\slash", 'k="back\\\\slash"'),
        ("line\nlevel=error", 'k="line\\nlevel=error"'), ("nul\x00esc\x1b", 'k="nul\\u0000esc\\u001b"'),
        ("line\u2028separator", 'k="line\\u2028separator"'), ("\ud800", 'k="\\ud800"'),
        ("\u00e9\U0001f600", "k=\u00e9\U0001f600"),
    ],
)  # fmt: skip
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


SAYS = """
import logging, sys, threading
from streampulse.core import logs as logfmt
logfmt.configure(relayed={relayed})
log = logging.getLogger("probe")
log.debug("not said")
for level in ("info", "warning", "error", "critical"):
    getattr(log, level)("said", extra={{"fields": {{"batch_id": 7}}}})
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
print(logfmt.journal_prefix(logging.ERROR, sys.stdout) + "printed", flush=True)
raise ValueError("a first line\\nlevel=info")
"""


def said(file: Path, journal: Path | None, relayed: bool = False) -> list[str]:
    """Run a process that logs into a file and return the lines; ``journal`` is the file that systemd has named."""
    environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
    if journal is not None:
        found = journal.stat()
        environment["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    with file.open("w") as output:
        code = SAYS.format(relayed=relayed)
        done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=output, stderr=subprocess.PIPE)
    assert done.returncode == 1
    # Nothing beside the lines: no traceback of Python's own.
    assert done.stderr == b""
    return file.read_text().splitlines()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "output"
    made.touch()
    return made


def test_lines_to_the_journal_begin_with_their_priority(file: Path) -> None:
    lines = said(file, journal=file)
    assert [line[:3] for line in lines] == ["<6>", "<4>", "<3>", "<2>", "<2>", "<3>", "<2>"]
    assert lines[0].startswith("<6>ts=")
    assert lines[1].endswith("level=warning logger=probe msg=said batch_id=7")
    assert lines[5] == "<3>printed"


def test_an_uncaught_exception_is_one_line(file: Path) -> None:
    thread, _, process = said(file, journal=None)[4:]
    for line, error in ((thread, "ZeroDivisionError"), (process, "ValueError: a first line\\nlevel=info")):
        assert ' level=critical logger=streampulse.core.logs msg="unexpected error" exception="Traceback' in line
        assert error in line


def test_lines_to_anything_else_do_not(file: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "journal"
    elsewhere.touch()
    for journal in (None, elsewhere):
        assert all(line.startswith("ts=") or line == "printed" for line in said(file, journal))


def test_a_relay_takes_them_to_the_journal_where_there_is_one(file: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "journal"
    elsewhere.touch()
    assert said(file, elsewhere, relayed=True)[0].startswith("<6>ts=")
    assert said(file, None, relayed=True)[0].startswith("ts=")


def test_a_stream_without_a_file_reaches_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "0:0")
    assert not logfmt.reaches_journal(io.StringIO())


def test_requests_of_the_http_client_are_not_logged() -> None:
    program = "import logging; from streampulse.core import logs; logs.configure();"
    asked = f"{program} logging.getLogger('httpx').info('GET'); logging.getLogger('streampulse').info('said')"
    done = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1
    assert "said" in done.stdout
