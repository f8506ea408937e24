"""The result of a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streampulse_ops.bench.figures import Figure


@dataclass(frozen=True)
class Outcome:
    """Figures for the table, and the host's raw result for the JSON file."""

    figures: list[Figure]
    details: Any
