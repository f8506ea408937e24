"""What the job says of its own batches: the mean time of each phase, from its scrape."""

from __future__ import annotations

import re
import urllib.request
from typing import Final

from streampulse.core.settings import JobSettings

_LINE: Final = re.compile(r'^streampulse_job_batch_phase_seconds_(sum|count)\{phase="([^"]+)"\} (\S+)$', re.MULTILINE)


class Phases:
    """The mean time of each phase of the batches between two moments.

    :param settings: where the job's scrape is.
    """

    def __init__(self, settings: JobSettings) -> None:
        self._url = f"http://{settings.metrics_host}:{settings.metrics_port}/metrics"
        self._before: dict[tuple[str, str], float] = {}

    def begin(self) -> None:
        """Note the counters at the first moment."""
        self._before = self._read()

    def end(self) -> dict[str, float]:
        """Return by phase the mean seconds of a batch since the first moment."""
        now = self._read()
        means = {}
        for kind, phase in now:
            if kind != "sum":
                continue
            count = now["count", phase] - self._before.get(("count", phase), 0.0)
            if count > 0:
                means[phase] = (now["sum", phase] - self._before.get(("sum", phase), 0.0)) / count
        return means

    def _read(self) -> dict[tuple[str, str], float]:
        try:
            with urllib.request.urlopen(self._url, timeout=5) as answer:  # noqa: S310 - the job's own address
                text = answer.read().decode()
        except OSError:
            # The phases explain a figure, they are none: without them the measurement stands.
            return {}
        return {(kind, phase): float(value) for kind, phase, value in _LINE.findall(text)}
