"""A batch is counted beside the reading of the next one: in order, and never after a failure."""

import threading

import pytest

from streampulse.job.overlap import Overlap


def test_a_batch_waits_for_the_one_before_and_its_caller_does_not_wait_for_it() -> None:
    overlap, counted = Overlap(), list[int]()
    go_on = [threading.Event(), threading.Event()]

    def count(number: int) -> None:
        assert go_on[number].wait(10)
        counted.append(number)

    overlap.hand_over(lambda: count(0))
    assert overlap.busy
    second = threading.Thread(target=overlap.hand_over, args=(lambda: count(1),))
    second.start()
    go_on[1].set()
    second.join(0.05)
    assert second.is_alive()
    assert counted == []
    go_on[0].set()
    second.join(10)
    overlap.hand_over(lambda: counted.append(2))
    overlap.hand_over(lambda: None)
    assert counted == [0, 1, 2]


def test_a_failure_discards_what_was_read_and_is_the_end() -> None:
    overlap, counted = Overlap(), list[int]()

    def fail() -> None:
        raise ConnectionError("gone")

    overlap.hand_over(fail)
    for number in range(2):
        with pytest.raises(ConnectionError, match="gone"):
            overlap.hand_over(lambda number=number: counted.append(number))  # type: ignore[misc]
    assert counted == []
    assert isinstance(overlap.failure, ConnectionError)
    assert not overlap.busy


def test_what_is_offered_is_dropped_while_a_batch_is_counted_and_after_a_failure() -> None:
    overlap, counted, go_on = Overlap(), list[str](), threading.Event()

    def fail() -> None:
        go_on.wait(10)
        raise ConnectionError("gone")

    overlap.hand_over(lambda: None)
    while overlap.busy:
        pass
    overlap.offer(lambda: counted.append("idle"))
    overlap.hand_over(fail)
    overlap.offer(lambda: counted.append("busy"))
    go_on.set()
    while overlap.busy:
        pass
    overlap.offer(lambda: counted.append("failed"))
    assert counted == ["idle"]
    assert isinstance(overlap.failure, ConnectionError)
