"""The job's own metrics for the scrape, named after Prometheus' conventions."""

import json
from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from streampulse import __version__
from streampulse.core.metrics import KnownGauge
from streampulse.job.rows import REASONS

RECORDS: Final = Counter("streampulse_job_records", "Records read from the topic of the events, in committed batches.")
ACCEPTED: Final = Counter("streampulse_job_accepted_events", "Events that were counted.")
DUPLICATES: Final = Counter(
    "streampulse_job_duplicate_events", "Events passed over because their id was counted before."
)
DEAD_LETTERS: Final = Counter("streampulse_job_dead_letters", "Records that do not count, by reason.", ["reason"])
EXCLUDED: Final = Counter(
    "streampulse_job_excluded_records", "Records that were excluded although the log holds them, by reason.", ["reason"]
)
ROWS: Final = Counter("streampulse_job_rows_written", "Rows of the tables written or removed.")
PHASE_SECONDS: Final = Histogram(
    "streampulse_job_batch_phase_seconds",
    "Time that one phase of a micro-batch took.",
    ["phase"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
LAST_COMMIT: Final = Gauge(
    "streampulse_job_last_commit_timestamp_seconds", "When the newest batch was committed, in seconds since the epoch."
)
EVENT_CLOCK: Final = Gauge(
    "streampulse_job_event_clock_timestamp_seconds", "The event clock, in seconds since the epoch."
)
ARRIVAL_LAG: Final = Gauge(
    "streampulse_job_arrival_lag_seconds",
    "Time from the arrival of the newest record of the last batch to the commit of that batch.",
)
LAG_RECORDS: Final = Gauge(
    "streampulse_job_lag_records",
    "Records in the topic of the events that are not committed yet, as of the query's newest report.",
)
LOST_SPAN: Final = KnownGauge(
    "streampulse_job_lost_span_timestamp_seconds",
    "When the job last noted that Kafka lost records, in seconds since the epoch.",
)
WAITING: Final = Gauge(
    "streampulse_job_waiting_partition_offset",
    "Offset of the event that a partition waits at because clocks differ or do not answer.",
    ["partition", "clock"],
)
STATE: Final = Gauge("streampulse_job_state_entries", "Entries of the working state, by kind.", ["kind"])
INPUT_RATE: Final = KnownGauge(
    "streampulse_job_input_records_per_second",
    "Rate at which records arrived before the newest trigger, as Spark has it, records per second.",
)
PROCESSED_RATE: Final = KnownGauge(
    "streampulse_job_processed_records_per_second",
    "Rate at which the newest trigger worked off its records, as Spark has it, records per second.",
)
TRIGGER_SECONDS: Final = KnownGauge("streampulse_job_trigger_seconds", "Time that the newest trigger took in all.")
EXECUTORS: Final = KnownGauge("streampulse_job_executors", "Executors that the driver has, itself not counted.")
BUILD: Final = Gauge("streampulse_job_build_info", "1, with the version as a label.", ["version"])
BUILD.labels(__version__).set(1)

# A counter that appears with its first dead letters has no increase from nothing to these: no alert would see them.
for _reason in REASONS:
    DEAD_LETTERS.labels(_reason)
    EXCLUDED.labels(_reason)


def note_progress(progress: Mapping[str, Any]) -> None:
    """Take over what Spark says of the query's newest trigger; what it leaves out is not known.

    Spark counts the source's rows, which are slices. So its rates are multiplied by the records in a slice, as the
    offsets of the trigger's batch tell them.

    :param progress: ``StreamingQuery.lastProgress``. Rates that are no finite number (no time has passed) are left out
        there; ``durationMs.triggerExecution`` is in milliseconds; ``startOffset`` and ``endOffset`` are texts
        ``{"<partition>": offset}``, or ``null``.
    """
    slices, source = progress["numInputRows"], progress["sources"][0]
    scale = 1.0
    if slices:
        first, ends = (json.loads(source[name] or "null") or {} for name in ("startOffset", "endOffset"))
        scale = sum(end - first.get(number, end) for number, end in ends.items()) / slices
    for gauge, name in ((INPUT_RATE, "inputRowsPerSecond"), (PROCESSED_RATE, "processedRowsPerSecond")):
        rate = progress.get(name)
        gauge.set(None if rate is None else rate * scale)
    milliseconds = progress.get("durationMs", {}).get("triggerExecution")
    TRIGGER_SECONDS.set(None if milliseconds is None else milliseconds / 1000)
