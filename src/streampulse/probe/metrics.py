"""The probe's metrics for the scrape. The pipeline's metrics are in :mod:`streampulse.probe.pipeline`."""

from typing import Final

from prometheus_client import Counter, Histogram

from streampulse.core.metrics import KnownGauge

#: Observed value of an event that never became visible, in seconds: above every bucket, and finite.
NEVER_SECONDS: Final = 60.0

EVENTS: Final = Counter(
    "streampulse_probe_events",
    "Events of the probe's, one a minute, by outcome: exact (its row in the API is exactly what one event comes to), "
    "wrong (another row), lost (no row in time), unsent (Kafka did not take it), unread (the API refused to tell).",
    ["outcome"],
)
END_TO_END_SECONDS: Final = Histogram(
    "streampulse_probe_end_to_end_seconds",
    "Time from sending an event until its row is visible in the API; one that never was is in no bucket but +Inf.",
    buckets=(0.25, 0.5, 1, 2, 3, 5, 10, 20, 30),
)
LAST_EXACT: Final = KnownGauge(
    "streampulse_probe_last_exact_timestamp_seconds",
    "When an event's row was last found to be exact, in seconds since the epoch.",
)
API_REQUESTS: Final = Counter(
    "streampulse_probe_api_requests",
    "Requests for the newest rows, one every few seconds, by outcome: ok (200 with rows), refused (4xx), "
    "error (any other answer), unanswered.",
    ["outcome"],
)
API_SECONDS: Final = Histogram(
    "streampulse_probe_api_request_duration_seconds",
    "Time that such a request took, connecting included; of those that were answered.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)

# Initialise every label: a counter that appears with its first failure shows no increase from nothing to one.
for _outcome in ("exact", "wrong", "lost", "unsent", "unread"):
    EVENTS.labels(_outcome)
for _outcome in ("ok", "refused", "error", "unanswered"):
    API_REQUESTS.labels(_outcome)
