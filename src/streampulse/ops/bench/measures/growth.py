"""What a batch costs, and how large tables and state are, after simulated days."""

from __future__ import annotations

from typing import Any, Final

from streampulse.ops.bench.figures import Figure
from streampulse.ops.bench.measures.outcome import Outcome
from streampulse.ops.bench.options import Options
from streampulse.ops.bench.place import Place

#: A batch of the last day against one of the first: what is still called flat.
AIM_RATIO: Final = 1.5
MIB: Final = 1024 * 1024


def measure(place: Place, options: Options) -> Outcome:
    """Simulate the days with the job stopped, so that nothing else is measured."""
    place.stop("job")
    with place.session.screen.step("growth") as step:
        step.note(f"{max(options.days)} simulated days, without Kafka and Spark")
        answer = place.measure(["growth", "--days", *(str(day) for day in options.days)])
        found = figures(answer)
        step.done(f"a batch of day {answer[-1]['days']}: {answer[-1]['batch_median_seconds'] * 1000:.1f} ms")
    place.start("job")
    return Outcome(found, answer)


def figures(answer: list[dict[str, Any]]) -> list[Figure]:
    """Return costs and sizes at each mark, and the last against the first."""
    made = []
    for mark in answer:
        days = mark["days"]
        state = ("job_state_snapshot", "job_state_delta")
        tables = sum(size for name, size in mark["table_bytes"].items() if name not in state)
        entries = mark["state_entries"]
        made += [
            Figure(
                f"growth.{days}.batch",
                f"day {days}: a batch",
                mark["batch_median_seconds"] * 1000,
                "ms",
                note="engine and store alone, without Kafka and Spark; median of the last simulated day"
                if mark is answer[0]
                else "",
            ),
            Figure(
                f"growth.{days}.tables",
                f"day {days}: tables",
                tables / MIB,
                "MiB",
                note=f"{mark['rows']:,} rows of stream_metrics_minute",
            ),
            Figure(
                f"growth.{days}.stored_state",
                f"day {days}: stored state",
                sum(mark["table_bytes"][name] for name in state) / MIB,
                "MiB",
                note="the tables job_state_snapshot and job_state_delta, with what vacuum has not yet given back",
            ),
            Figure(
                f"growth.{days}.entries",
                f"day {days}: entries of the working state",
                sum(entries.values()),
                "",
                note=", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in entries.items()),
            ),
            Figure(f"growth.{days}.load", f"day {days}: reading the state at a start", mark["load_seconds"], "s"),
        ]
    first, last = answer[0], answer[-1]
    if first is not last:
        ratio = last["batch_median_seconds"] / first["batch_median_seconds"]
        title = f"a batch of day {last['days']} / day {first['days']}"
        made.append(Figure("growth.ratio", title, ratio, "", aim=AIM_RATIO))
    return made
