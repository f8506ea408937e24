"""A figure, its limits and the verdict; the result of a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured number.

    :param name: its id, stable from run to run, such as ``latency.3000.p95``.
    :param title: its name in the table.
    :param unit: of ``value``, ``aim`` and ``must``.
    :param aim: the target; None: the figure is only shown.
    :param must: the hard limit; missing it fails the run.
    :param more_is_better: whether the limits are lower bounds.
    :param note: an optional explanation.
    """

    name: str
    title: str
    value: float
    unit: str
    aim: float | None = None
    must: float | None = None
    more_is_better: bool = False
    note: str = ""

    def reaches(self, limit: float | None) -> bool:
        """Return whether the figure is within a limit; True without one."""
        if limit is None:
            return True
        return self.value >= limit if self.more_is_better else self.value <= limit

    @property
    def ratio(self) -> float | None:
        """The figure divided by its aim, or by ``must`` without an aim; None without either."""
        limit = self.aim if self.aim is not None else self.must
        return self.value / limit if limit else None

    @property
    def verdict(self) -> str:
        """``ok``, ``aim missed`` or ``MUST missed``; empty without a limit."""
        if not self.reaches(self.must):
            return "MUST missed"
        if not self.reaches(self.aim):
            return "aim missed"
        return "" if self.aim is None and self.must is None else "ok"


@dataclass(frozen=True)
class Measured:
    """Figures for the table, and the host's raw result for the JSON file."""

    figures: list[Figure]
    details: Any


def missed(figures: Sequence[Figure]) -> list[str]:
    """Return a line for each figure that misses its ``must``."""
    return [
        f"{figure.title}: {in_digits(figure.value)} {figure.unit}, must be at "
        f"{'least' if figure.more_is_better else 'most'} {in_digits(figure.must or 0)}"
        for figure in figures
        if not figure.reaches(figure.must)
    ]


def in_digits(value: float) -> str:
    """Return a number with three significant digits; a large one whole, with separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
