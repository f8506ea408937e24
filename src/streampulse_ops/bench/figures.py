"""A figure, what is asked of it, and how the two relate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number.

    :param name: what identifies it from run to run, such as ``latency.3000.p95``.
    :param title: what people read.
    :param unit: of ``value``, ``aim`` and ``must``.
    :param aim: what it is to reach; None: it is only shown.
    :param must: what it has to reach; missing it fails the run.
    :param more_is_better: whether the limits are lower bounds.
    :param note: how it is to be read, where that is not plain.
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
        """Tell whether the figure is within a limit; without one it is."""
        if limit is None:
            return True
        return self.value >= limit if self.more_is_better else self.value <= limit

    @property
    def ratio(self) -> float | None:
        """The figure divided by its aim, or by what it must reach where there is no aim; None without either."""
        limit = self.aim if self.aim is not None else self.must
        return self.value / limit if limit else None

    @property
    def verdict(self) -> str:
        """In a word or two, where there is a limit: ``ok``, ``aim missed``, ``MUST missed``."""
        if not self.reaches(self.must):
            return "MUST missed"
        if not self.reaches(self.aim):
            return "aim missed"
        return "" if self.aim is None and self.must is None else "ok"


def missed(figures: Sequence[Figure]) -> list[str]:
    """Return a line for each figure that misses what it must reach."""
    return [
        f"{figure.title}: {written(figure.value)} {figure.unit}, must be at "
        f"{'least' if figure.more_is_better else 'most'} {written(figure.must or 0)}"
        for figure in figures
        if not figure.reaches(figure.must)
    ]


def written(value: float) -> str:
    """Return a number with three significant digits, or whole with separators where it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
