"""Plans of PostgreSQL, as ``EXPLAIN (ANALYZE, FORMAT JSON)`` gives them."""

from collections.abc import Iterator
from typing import Any


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def rows_read(plan: dict[str, Any]) -> int:
    """Return the rows of the history that a plan touched, discarded ones included."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))
        * node["Actual Loops"]
        for node in nodes(plan)
        if node.get("Relation Name") == "stream_metrics_minute"
    )
