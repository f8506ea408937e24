"""The report: a table on the screen, the same in Markdown, and JSON for later comparison."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from streampulse.core.errors import OperatorError
from streampulse_ops.bench.figures import Figure, in_digits, missed
from streampulse_ops.docs.markdown import table

#: Version of the JSON file's format.
FORM: Final = 1
COLUMNS: Final = ("figure", "measured", "unit", "aim", "must", "of the limit", "verdict")
EARLIER: Final = "of the earlier"


@dataclass(frozen=True)
class Report:
    """The figures of a run and the description of the run.

    :param about: description of the run: time, commit, machine and options.
    :param details: the host's raw results, by measurement.
    :param earlier: figures of an earlier run by name, for comparison.
    """

    about: Mapping[str, Any]
    figures: Sequence[Figure]
    details: Mapping[str, Any]
    earlier: Mapping[str, float] | None = None

    def columns(self) -> list[str]:
        """Return the headings of the table."""
        return [*COLUMNS, *([] if self.earlier is None else [EARLIER])]

    def rows(self) -> list[list[str]]:
        """Return the rows of the table, one for each figure."""
        rows = []
        for figure in self.figures:
            row = [
                figure.title,
                in_digits(figure.value),
                figure.unit,
                _limit(figure.aim, figure.more_is_better),
                _limit(figure.must, figure.more_is_better),
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                figure.verdict,
            ]
            if self.earlier is not None:
                before = self.earlier.get(figure.name)
                row.append(f"{figure.value / before:.2f}" if before else "")
            rows.append(row)
        return rows

    def table(self) -> Table:
        """Return the table for a screen."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in self.columns():
            numeric = heading not in ("figure", "unit", "verdict")
            table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
        for row, figure in zip(self.rows(), self.figures, strict=True):
            style = {"MUST missed": "red", "aim missed": "yellow"}.get(figure.verdict)
            table.add_row(*row, style=style)
        return table

    def markdown(self) -> str:
        """Return the run as a page of Markdown."""
        lines = ["# Benchmark", ""]
        lines += [f"- {name.replace('_', ' ')}: {_words(value)}" for name, value in self.about.items()]
        lines += ["", *table(self.columns(), self.rows())]
        notes = [f"- {figure.title}: {figure.note}" for figure in self.figures if figure.note]
        lines += ["", *notes] if notes else []
        lines += ["", *(f"- MUST missed: {line}" for line in missed(self.figures))] if missed(self.figures) else []
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """Return the run as JSON, which :func:`earlier_figures` reads."""
        figures = [{**asdict(figure), "ratio": figure.ratio, "verdict": figure.verdict} for figure in self.figures]
        document = {"form": FORM, "about": self.about, "figures": figures, "details": self.details}
        return json.dumps(document, indent=2) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write both files into a folder, created if missing, and return them.

        :raises OperatorError: they cannot be written.
        """
        files = {folder / "bench.json": self.json(), folder / "bench.md": self.markdown()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file, text in files.items():
                file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OperatorError(f"{folder} cannot be written: {error.strerror}; choose another with --out") from None
        return list(files)


def earlier_figures(file: Path) -> dict[str, float]:
    """Return the figures of an earlier run by name.

    :raises OperatorError: the file is not a report of ``inv bench``.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["form"] != FORM:
            raise OperatorError(f"{file} is of another form ({document['form']}): measure the earlier release again")
        return {figure["name"]: float(figure["value"]) for figure in document["figures"]}
    except OSError as error:
        raise OperatorError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise OperatorError(f"{file} is no bench.json of inv bench: name one with --compare") from None


def _limit(limit: float | None, more_is_better: bool) -> str:
    return "" if limit is None else f"{'≥' if more_is_better else '≤'} {in_digits(limit)}"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value)
    return str(value)
