"""The cost of a batch and the size of tables and state after simulated days."""

from typing import Any, Final

from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place

#: Maximum ratio of a batch's cost, last day to first day, that counts as flat.
AIM_RATIO: Final = 1.5
MIB: Final = 1024 * 1024


def measure(place: Place, options: Options) -> Measured:
    """Simulate the days with the job stopped, so that it does not disturb the measurement."""
    place.stop("job")
    with place.session.screen.step("growth") as step:
        step.note(f"{max(options.days)} simulated days, without Kafka and Spark")
        answer = place.measure(["growth", "--days", *(str(day) for day in options.days)])
        found = figures(answer)
        step.done(f"a batch of day {answer[-1]['days']}: {answer[-1]['batch_median_seconds'] * 1000:.1f} ms")
    place.start("job")
    return Measured(found, answer)


def figures(answer: list[dict[str, Any]]) -> list[Figure]:
    """Return costs and sizes at each mark, and the ratio of the last to the first."""
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
                note="engine and store alone, without Kafka and Spark; median of the last simulated day, of which"
                f" {mark['batch_median_cpu_seconds'] * 1000:.1f} ms processor time of the job's side; the load"
                f" average was {mark['load_average']:.1f}",
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
                note=f"on disk, of which {mark['state_payload_bytes'] / MIB:.2f} MiB are rows that are there",
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
        name = f"day {last['days']} / day {first['days']}"
        ratio = last["batch_median_seconds"] / first["batch_median_seconds"]
        # Wall time also depends on other programs, so its ratio has no limit.
        made.append(Figure("growth.ratio", f"a batch, {name}", ratio, "", note="wall time, not held against a limit"))
        ratio = last["batch_median_cpu_seconds"] / first["batch_median_cpu_seconds"]
        note = "processor time of the job's side, without PostgreSQL's"
        made.append(
            Figure("growth.cpu_ratio", f"a batch's processor time, {name}", ratio, "", aim=AIM_RATIO, note=note)
        )
    return made
