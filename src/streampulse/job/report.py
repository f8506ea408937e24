"""What the log says of the batches that were committed."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

log = logging.getLogger(__name__)

#: Two batches a second for ever are too many lines; what they came to in this long is one, in seconds.
EVERY_SECONDS: Final = 60.0
#: A batch that took longer than this has a line of its own, in seconds.
SLOW_SECONDS: Final = 5.0


class Report:
    """Sums batches up, and says now and then what they came to; of a slow one at once.

    :param clock: what time it is, in seconds; of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The first batch is said at once: it is the sign that a driver has begun.
        self._due = clock()
        self._sums: Counter[str] = Counter()
        self._letters: Counter[str] = Counter()
        self._slowest = 0.0

    def committed(
        self, batch_id: int, seconds: float, numbers: Mapping[str, int], dead_letters: Mapping[str, int]
    ) -> None:
        """Note a batch.

        :param seconds: that it took, from its decoding to its commit.
        :param numbers: what it came to, by name: records, events accepted, ...
        :param dead_letters: by reason.
        """
        if seconds > SLOW_SECONDS:
            fields = {"batch_id": batch_id, "seconds": f"{seconds:.2f}", **numbers}
            log.info("slow batch", extra={"fields": fields})
        self._sums.update({"batches": 1, **numbers})
        self._letters.update(dead_letters)
        self._slowest = max(self._slowest, seconds)
        now = self._clock()
        if now < self._due:
            return
        self._due = now + EVERY_SECONDS
        log.info(
            "batches committed",
            extra={
                "fields": {
                    "batch_id": batch_id,
                    **self._sums,
                    "dead_letters": self._letters.total(),
                    **{f"dead_letters_{reason}": count for reason, count in sorted(self._letters.items())},
                    "slowest_seconds": f"{self._slowest:.2f}",
                }
            },
        )
        self._sums.clear()
        self._letters.clear()
        self._slowest = 0.0
