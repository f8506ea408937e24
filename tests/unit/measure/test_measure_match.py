"""Matches of records with the commits that made them visible, and percentiles, against the simplest code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampulse.host.measure.match import Commit, Visibility, percentile, summary


@given(st.lists(st.dictionaries(st.integers(0, 2), st.integers(0, 5), max_size=3), max_size=12), st.data())
def test_it_agrees_with_looking_through_all_commits(steps: list[dict[int, int]], data: st.DataObject) -> None:
    reached: dict[int, int] = {}
    commits = []
    for number, step in enumerate(steps):
        reached = {p: reached.get(p, 0) + step.get(p, 0) for p in {*reached, *step}}
        commits.append(Commit(number, float(number), dict(reached)))
    partition, offset = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 20))
    expected = next((c.at for c in commits if c.offsets.get(partition, 0) > offset), None)
    assert Visibility(commits).at(partition, offset) == expected


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], percent: int) -> None:
    found = percentile(sorted(values), percent)
    needed = percent * len(values)
    assert 100 * sum(value <= found for value in values) >= needed
    assert all(100 * sum(value <= smaller for value in values) < needed for smaller in values if smaller < found)


def test_a_summary_counts_and_refuses_to_be_of_nothing() -> None:
    assert summary([3.0, 1.0, 2.0]) == {"count": 3, "p50": 2.0, "p95": 3.0, "p99": 3.0, "max": 3.0}
    with pytest.raises(ValueError, match="nothing was measured"):
        summary([])
