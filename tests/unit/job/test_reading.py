"""How often the executors are asked for the rest of a batch."""

import json
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streampulse.job.positions import Position
from streampulse.job.reading import Reading
from streampulse.job.rows import Rows, Slice, Suspect

LIMITS = "limits"


class Frame:
    """A batch, whose executors return prepared pieces: the slice, and what it leaves unread."""

    def __init__(self, *pieces: tuple[Slice, int]) -> None:
        self._pieces = list(pieces)
        self.sparkSession = self.sparkContext = self

    def setLocalProperty(self, name: str, value: str) -> None:  # noqa: N802 - Spark's name
        if name == LIMITS:
            assert json.loads(value) == {"0": [None, []]}

    def collect(self) -> list[dict[str, Any]]:
        piece, unread = self._pieces.pop(0)
        return [{"slice": piece.encode(), "unread": unread}]


def read(monkeypatch: pytest.MonkeyPatch, frame: Frame, *, waits: bool) -> list[int]:
    """Read a batch of partition 0 and return the offsets up to which pieces were handed over."""
    monkeypatch.setitem(
        sys.modules, "streampulse.job.spark_source", cast("Any", SimpleNamespace(LIMITS=LIMITS, POSITIONS="positions"))
    )
    counted: list[int] = []
    batches = SimpleNamespace(
        process=lambda _query, _batch, slices, *_times: counted.extend(piece.next_offset for piece in slices),
        position=lambda piece: Position(piece.next_offset, piece.clock_us),
    )
    suspects = SimpleNamespace(note=lambda *_: waits, limits=lambda: {0: None})
    overlap, excluded = SimpleNamespace(hand_over=lambda count: count()), SimpleNamespace(ahead=lambda _: {})
    parts: Any = batches, overlap, suspects, excluded, {0: Position(0, None)}
    Reading(*parts).process(frame, 0)
    return counted


def piece(first: int, following: int, suspect: Suspect | None = None) -> Slice:
    return Slice(0, following - first, first, following, 0, None, Rows(0), [], suspect=suspect)


def test_a_batch_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Frame((piece(0, 3), 7), (piece(3, 10), 0))
    assert read(monkeypatch, frame, waits=False) == [3, 10]


def test_a_partition_that_waits_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executor would be asked again and again for nothing, and no other partition got its next batch."""
    frame = Frame((piece(0, 3, Suspect(3, 1)), 7))
    assert read(monkeypatch, frame, waits=True) == [3]


def test_a_partition_whose_event_is_no_longer_suspect_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Frame((piece(0, 3, Suspect(3, 1)), 7), (piece(3, 10), 0))
    assert read(monkeypatch, frame, waits=False) == [3, 10]
