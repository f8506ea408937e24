"""Figures against their limits, the report, and comparing with an earlier one."""

import json
from pathlib import Path

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops.bench.figures import Figure, missed
from streampulse_ops.bench.report import Report, earlier_figures

FAST = Figure("a.p95", "a, p95", 1.2, "s", aim=1.5, must=2.5)
SLOW = Figure("b.p95", "b | p95", 3.0, "s", aim=1.5, must=2.5, note="why")
MIDDLING = Figure("c.rate", "c", 0.8, "", aim=1.0, must=0.5, more_is_better=True)
LOW = Figure("d.rate", "d", 90_000.0, "events/s", must=100_000, more_is_better=True)
SHOWN = Figure("e", "e", 12.345, "MiB")
ALL = [FAST, SLOW, MIDDLING, LOW, SHOWN]


def report(earlier: dict[str, float] | None = None) -> Report:
    return Report({"commit": "abc", "options": {"only": "all", "rates": (1, 2)}}, ALL, {"a": [1]}, earlier)


def test_verdicts_follow_from_the_limits() -> None:
    assert [figure.verdict for figure in ALL] == ["ok", "MUST missed", "aim missed", "MUST missed", ""]
    assert [figure.ratio for figure in ALL] == [pytest.approx(0.8), 2.0, 0.8, 0.9, None]


def test_a_missed_figure_is_reported_with_its_limit() -> None:
    assert missed(ALL) == ["b | p95: 3 s, must be at most 2.5", "d: 90,000 events/s, must be at least 100,000"]


def test_markdown_has_a_row_for_each_figure_and_its_notes() -> None:
    text = report().markdown()
    assert "| a, p95 | 1.2 | s | ≤ 1.5 | ≤ 2.5 | 0.80 | ok |" in text
    assert "| b \\| p95 | 3 | s | ≤ 1.5 | ≤ 2.5 | 2.00 | MUST missed |" in text
    assert "| c | 0.8 |  | ≥ 1 | ≥ 0.5 | 0.80 | aim missed |" in text
    assert "- b | p95: why" in text
    assert "- options: only all, rates 1 2" in text
    assert text.count("\n| ") == 1 + len(ALL)


def test_written_files_are_read_back_and_compared_with(tmp_path: Path) -> None:
    files = report().write(tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["bench.json", "bench.md"]
    earlier = earlier_figures(files[0])
    assert earlier == {figure.name: figure.value for figure in ALL}
    later = report({"a.p95": 2.4, "e": 0.0})
    assert later.columns()[-1] == "of the earlier"
    assert [row[-1] for row in later.rows()] == ["0.50", "", "", "", ""]
    assert json.loads(files[0].read_text())["details"] == {"a": [1]}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form": 1, "figures": [{}]}'])
def test_an_invalid_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(OperatorError, match="is no bench"):
        earlier_figures(tmp_path / "x.json")


def test_a_report_that_is_not_there_or_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be read: No such file"):
        earlier_figures(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"form": 99}')
    with pytest.raises(OperatorError, match="of another form"):
        earlier_figures(tmp_path / "x.json")
