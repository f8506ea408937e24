"""Names of metrics in a PromQL expression."""

import re

_FUNCTIONS = frozenset(
    {
        *("abs", "absent", "avg", "avg_over_time", "clamp_max", "clamp_min", "count", "count_over_time"),
        *("histogram_quantile", "increase", "label_replace", "last_over_time", "max", "max_over_time", "min"),
        *("rate", "sort_desc", "sum", "sum_over_time", "time", "timestamp", "vector"),
    }
)
_WORDS = frozenset({"and", "or", "unless", "by", "on", "group_left", "offset", "bool"})


def metric_names(expression: str) -> set[str]:
    """Return the metrics that an expression reads, recording rules included."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    # A pattern for __name__ names no metric.
    text = re.sub(r"\{[^}]*\}", " ", text)
    text = re.sub(r"\[[^]]*\]", " ", text)
    text = re.sub(r"\boffset\s+\w+", " ", text)
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    found = set(re.findall(r"(?<![\w.:])[A-Za-z_:][\w:]*", text))
    return {name for name in found if name.lower() not in _FUNCTIONS | _WORDS}
