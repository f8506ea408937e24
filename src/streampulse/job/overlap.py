"""One batch is counted while the next one is read."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class InBackground(Generic[Result]):
    """Calls a function in a thread and hands over its result or its exception."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._function = function
        self._results: list[Result] = []
        #: What the function raised, None where it has returned or still runs.
        self.error: BaseException | None = None
        # A daemon: a thread that hangs must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:  # noqa: BLE001 - handed over to the caller of result()
            self.error = error

    @property
    def running(self) -> bool:
        """Whether the function has neither returned nor raised."""
        return self._thread.is_alive()

    def result(self) -> Result:
        """Wait for the function's end and return what it returned.

        :raises BaseException: what it raised.
        """
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self._results[0]


class Overlap:
    """Has batches counted in the order in which they are handed over, one at a time, beside the caller.

    The caller reads the next batch in the meantime and then waits with it: that is the queue, of one batch, whose bytes
    :data:`~.ranges.BATCH_BYTES` bounds. A batch that fails is the last one. The next one is refused and dropped; the
    ledger's position says where reading goes on after a restart.
    """

    def __init__(self) -> None:
        self._counting: InBackground[None] | None = None
        self._handing_over = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a batch is being counted."""
        return self._counting is not None and self._counting.running

    @property
    def failure(self) -> BaseException | None:
        """What ended the last batch, None while there is no failure."""
        return None if self._counting is None else self._counting.error

    def hand_over(self, count: Callable[[], None]) -> None:
        """Wait until the batch before is committed, then have the next one counted.

        :raises BaseException: the failure of the batch before; nothing is counted after it.
        """
        with self._handing_over:
            if self._counting is not None:
                self._counting.result()
            self._counting = InBackground(count)

    def offer(self, count: Callable[[], None]) -> None:
        """Have something else counted, if nothing is, and nothing waits or has failed."""
        if self._handing_over.acquire(blocking=False):
            try:
                if not self.busy and self.failure is None:
                    self._counting = InBackground(count)
            finally:
                self._handing_over.release()
