"""The mean time of each phase of a batch, from the job's metrics."""

import re
from typing import Final

from streampulse.core import http
from streampulse.core.settings import JobSettings

_LINE: Final = re.compile(r'^streampulse_job_batch_phase_seconds_(sum|count)\{phase="([^"]+)"\} (\S+)$', re.MULTILINE)


class Phases:
    """The mean time of each phase of the batches between two moments.

    :param settings: the address of the job's metrics.
    """

    def __init__(self, settings: JobSettings) -> None:
        self._url = f"http://{settings.metrics_host}:{settings.metrics_port}/metrics"
        self._before: dict[tuple[str, str], float] = {}

    def begin(self) -> None:
        """Record the counters at the first moment."""
        self._before = self._read()

    def end(self) -> dict[str, float]:
        """Return the mean seconds per batch of each phase since the first moment."""
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
            text = http.get(self._url, seconds=5).text
        except OSError:
            # The measurement is valid without the phases; they only explain its result.
            return {}
        return {(kind, phase): float(value) for kind, phase, value in _LINE.findall(text)}
