"""The race: rows compared with the oracle's, ratios by rounds, the table, seeded kills."""

import dataclasses
import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from streampulse.core.errors import IncompleteError, OperatorError, UsageError
from streampulse.oracle.tables import MinuteRow
from streampulse_ops.bench import options
from streampulse_ops.bench.race import race
from streampulse_ops.bench.race.race import Outcome
from streampulse_ops.bench.race.runners import OWN, RUNNERS
from streampulse_ops.cli.console import Screen

ROW = MinuteRow(5, 1, 250, 2, 1, 4, 3)
KEY = (60_000_000, "red")


def outcome(rate: float = 100_000.0, differing: int = 0, nexts: tuple[float, ...] = ()) -> Outcome:
    return Outcome(rate, 5.0, nexts, 2**30, differing, 0)


def test_rows_are_compared_in_the_columns_that_are_counted() -> None:
    other = {KEY: ROW._replace(unique_viewers=0, active_viewers=0)}
    assert race.differing({KEY: ROW}, other, RUNNERS["quix"].columns) == 0
    assert race.differing({KEY: ROW}, other, RUNNERS["bytewax"].columns) == 1


def test_a_missing_row_is_one_of_zeros() -> None:
    # The oracle has a row for each minute of a stream, others only for minutes with events.
    quiet = MinuteRow(0, 0, 0, 0, 0, 0, 3)
    assert race.differing({KEY: quiet}, {}, RUNNERS["spark"].columns) == 0
    assert race.differing({KEY: quiet}, {}, RUNNERS[OWN].columns) == 1
    assert race.differing({}, {KEY: ROW}, RUNNERS["spark"].columns) == 1


def test_ratios_are_medians_of_rounds() -> None:
    own = [outcome(90_000), outcome(200_000), outcome(110_000)]
    other = [outcome(100_000), outcome(100_000), outcome(100_000)]
    (bytewax,) = race.ratios({OWN: own, "bytewax": other})
    assert (bytewax.value, bytewax.must, bytewax.verdict) == (1.1, 1.25, "MUST missed")


def test_the_table_says_what_differs_and_what_is_not_counted() -> None:
    text = race.markdown(
        {"quix": [outcome(30_000), outcome(20_000, differing=2), outcome(25_000)]},
        {"quix": outcome(differing=1_234, nexts=(4.25, 50.0))},
    )
    assert text.splitlines()[-1] == (
        "| Quix Streams | 25,000 (20,000 to 30,000) | 5.0 | 2 | 1,234 (2 kills) | 4.2, 50.0 | 1,024 "
        "| unique_viewers, active_viewers |"
    )


def test_kills_are_the_same_in_each_run() -> None:
    kills = race.moments(3, 1_000)
    assert kills == race.moments(3, 1_000) == sorted(kills)
    assert all(50 <= count <= 750 and 0 <= wait < 1 for count, wait in kills)


def test_only_names_a_peer() -> None:
    assert set(options.PEERS) == RUNNERS.keys() - {OWN}
    assert options.names("only", "spark", options.PEERS) == ("spark",)
    with pytest.raises(UsageError, match="bytewax, quix, spark"):
        options.names("only", "latency", options.PEERS)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Stand for the runs: each has the same outcome."""
    monkeypatch.setattr(race, "_world", lambda *_: None)
    monkeypatch.setattr(race, "_shown", lambda *_: outcome(nexts=(1.0,)))
    return Screen(Console(file=io.StringIO(), width=200, highlight=False))


def test_a_python_without_bytewax_leaves_it_out_by_name(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13))
    with pytest.raises(IncompleteError, match="without Bytewax") as caught:
        race.race(screen, options.Options(out=tmp_path))
    assert caught.value.done.startswith("3 raced")
    assert "Quix Streams" in (tmp_path / "peers.md").read_text()


def test_rows_of_our_own_that_differ_fail_the_race(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(outcome(), differing=1)
    monkeypatch.setattr(race, "_shown", lambda *_: wrong)
    with pytest.raises(OperatorError, match="rows that differ"):
        race.race(screen, options.Options(only=("quix",)))
