"""Every promise and every threshold of the monitoring, each with its unit and its reason: the one place.

The rules of Prometheus, the dashboards' colours, the pages of the documentation and ``streampulse check`` all read
them here. A new value is written here and followed by ``inv docs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


class Unit(Enum):
    """What a value counts."""

    SECONDS = "s"
    #: 0 to 1, shown as per cent.
    RATIO = "ratio"
    COUNT = "count"


@dataclass(frozen=True)
class Threshold:
    """Where something begins to be wrong.

    :param value: the limit itself, in ``unit``.
    :param unit: what it counts.
    :param hold_seconds: how long it must be past the limit before anybody is told.
    :param reason: why this much and not another.
    :param window_seconds: over how long the value is taken; 0: as it is at the moment.
    :param minimum: how many events the window must hold before a share of them says anything.
    """

    value: float
    unit: Unit
    hold_seconds: int
    reason: str
    window_seconds: int = 0
    minimum: int = 0


@dataclass(frozen=True)
class Indicator:
    """One measurement of whether a promise is kept: so many of these events were good.

    :param name: the label ``sli``.
    :param objective: the share that must be good.
    :param events: what is counted, in words.
    :param good: what makes one good, in words.
    :param minimum_events: what a window must hold before it can alarm.
    """

    name: str
    objective: float
    events: str
    good: str
    minimum_events: int


@dataclass(frozen=True)
class Objective:
    """A promise over :data:`PERIOD_SECONDS`. Of several indicators the worse one counts.

    :param name: the label ``slo``.
    :param promise: the promise as people say it.
    :param reason: why this much.
    :param indicators: how it is measured; the first one's share is the promise's own, those of the others are weighed
        so that each one's budget is the whole budget.
    """

    name: str
    promise: str
    reason: str
    indicators: tuple[Indicator, ...]

    @property
    def objective(self) -> float:
        """The share that must be good."""
        return self.indicators[0].objective

    def weight(self, indicator: Indicator) -> float:
        """Return how many bad events of the promise one bad event of an indicator is."""
        return round((1 - self.objective) / (1 - indicator.objective), 6)


@dataclass(frozen=True)
class Burn:
    """How quickly the budget is spent before somebody is told.

    :param factor: so many times quicker than what would last for the whole period.
    :param long_seconds: over this window, so that it matters.
    :param short_seconds: and over this one, so that it is still so.
    :param severity: page or ticket.
    :param spent: the part of the budget that is gone when the long window alarms.
    """

    factor: float
    long_seconds: int
    short_seconds: int
    severity: str
    spent: float


# How things are looked at ---------------------------------------------------------------------------------------------

#: Prometheus asks every target and evaluates the rules this often.
SCRAPE_SECONDS: Final = 10
#: The recorded shares of the promises; their windows are five minutes and more.
RECORD_SECONDS: Final = MINUTE
#: Over which one such share is taken.
SHARE_SECONDS: Final = 5 * MINUTE
PERIOD_SECONDS: Final = 30 * DAY

# Promises -------------------------------------------------------------------------------------------------------------

#: Visible later than this is not fresh, in seconds.
FRESH_SECONDS: Final = 5
#: Behind by more than this is not complete, in seconds.
COMPLETE_SECONDS: Final = 60
#: A slower answer of the API is not quick, in seconds.
QUICK_SECONDS: Final = 0.1

FRESHNESS: Final = Objective(
    name="freshness",
    promise=f"95 % of the probe's events are visible in the API within {FRESH_SECONDS} s",
    reason="People watch numbers move while a stream goes on: a few seconds are live, a minute is history.",
    indicators=(
        Indicator(
            name="probe",
            objective=0.95,
            events="events of the probe, one a minute; lost and unsent ones are among them, those that the API refused"
            " to show are not",
            good=f"visible in the API within {FRESH_SECONDS} s",
            minimum_events=10,
        ),
    ),
)
CORRECTNESS: Final = Objective(
    name="correctness",
    promise="99 % of the records count, and 99.5 % of the probe's events are shown exactly",
    reason="A wrong number is worse than a late one. Dead letters are mostly mistakes of senders, so they get more.",
    indicators=(
        Indicator(
            name="dead_letters",
            objective=0.99,
            events="records that the job has read",
            good="not a dead letter",
            minimum_events=100,
        ),
        Indicator(
            name="probe",
            objective=0.995,
            events="events of the probe that Kafka took and whose row the API has not refused to show",
            good="its row in the API is exactly what one event comes to",
            minimum_events=10,
        ),
    ),
)
AVAILABILITY: Final = Objective(
    name="availability",
    promise="99.9 % of requests are answered, as the API counts them and as the probe sees them",
    reason="43 minutes a month: room for a restart with each release and one bad night, not for a bad habit.",
    indicators=(
        Indicator(
            name="api",
            objective=0.999,
            events="requests that the API answered, without /health and /prometheus",
            good="no 5xx",
            minimum_events=100,
        ),
        Indicator(
            name="probe",
            objective=0.999,
            events="requests of the probe, one every 5 s, to any host of the API",
            good="answered, and without an error of the server; a refusal (4xx) is an answer",
            minimum_events=100,
        ),
    ),
)
LATENCY: Final = Objective(
    name="latency",
    promise=f"99 % of the API's answers take at most {QUICK_SECONDS * 1000:.0f} ms,"
    " as the API and as the probe time them",
    reason="Answers come from memory in a few milliseconds; a tenth of a second is where a page begins to feel slow.",
    indicators=(
        Indicator(
            name="api",
            objective=0.99,
            events="requests that the API answered, without /live, /health and /prometheus",
            good=f"within {QUICK_SECONDS * 1000:.0f} ms",
            minimum_events=100,
        ),
        # How long a request waits until a busy API reads it, only who asks can tell.
        Indicator(
            name="probe",
            objective=0.99,
            events="requests of the probe that were answered, one every 5 s",
            good=f"within {QUICK_SECONDS * 1000:.0f} ms, connecting included",
            minimum_events=100,
        ),
    ),
)
COMPLETENESS: Final = Objective(
    name="completeness",
    promise=f"99.5 % of the time the pipeline is behind by at most {COMPLETE_SECONDS} s",
    reason="Events that wait are not lost, but numbers leave them out. 3.6 hours a month for outages.",
    indicators=(
        Indicator(
            name="lag",
            objective=0.995,
            events="seconds in which the probe runs",
            good=f"the oldest record that is not committed is {COMPLETE_SECONDS} s old at most; not known is bad",
            minimum_events=600,
        ),
    ),
)
OBJECTIVES: Final = (FRESHNESS, CORRECTNESS, AVAILABILITY, LATENCY, COMPLETENESS)

#: The Google SRE Workbook, "Alerting on SLOs", table 5-8.
BURNS: Final = (
    Burn(factor=14.4, long_seconds=HOUR, short_seconds=5 * MINUTE, severity="page", spent=0.02),
    Burn(factor=6, long_seconds=6 * HOUR, short_seconds=30 * MINUTE, severity="page", spent=0.05),
    Burn(factor=3, long_seconds=DAY, short_seconds=2 * HOUR, severity="ticket", spent=0.1),
    Burn(factor=1, long_seconds=3 * DAY, short_seconds=6 * HOUR, severity="ticket", spent=0.1),
)

#: For so long after an outage its budget still looks as if it burned: the longest of the short windows that page, which
#: sums shares of five minutes, and two minutes in which what is recorded is also evaluated.
RECENT_OUTAGE_SECONDS: Final = (
    max(burn.short_seconds for burn in BURNS if burn.severity == "page") + SHARE_SECONDS + 2 * MINUTE
)

# Thresholds -----------------------------------------------------------------------------------------------------------

SERVICE_DOWN: Final = Threshold(
    value=0,
    unit=Unit.COUNT,
    hold_seconds=40,
    reason="A crash that heals itself takes up to 25 s and wakes nobody; one that does not is told within 90 s.",
)
HOST_DOWN: Final = Threshold(
    value=0,
    unit=Unit.COUNT,
    hold_seconds=20,
    reason="Its targets time out one after another, within 20 s: so it is told no later than its first service.",
)
TARGET_MISSING: Final = Threshold(
    value=0,
    unit=Unit.COUNT,
    hold_seconds=5 * MINUTE,
    reason="Targets come from the inventory: one that is missing stays missing, so there is no hurry.",
)
PIPELINE_STALLED: Final = Threshold(
    value=COMPLETE_SECONDS,
    unit=Unit.SECONDS,
    hold_seconds=MINUTE,
    reason="The promise of completeness. A restart of the job costs about 20 s of lag, which is caught up at once.",
)
API_ERROR_RATE: Final = Threshold(
    value=0.05,
    unit=Unit.RATIO,
    hold_seconds=2 * MINUTE,
    window_seconds=2 * MINUTE,
    minimum=10,
    reason="One answer of twenty wrong is what people notice; a restart of PostgreSQL is over within the hold time.",
)
DISK_FULL: Final = Threshold(
    value=0.9,
    unit=Unit.RATIO,
    hold_seconds=MINUTE,
    reason="Kafka and PostgreSQL both end when they cannot write; a tenth of a disk is time to make room.",
)
PARTITIONS_OFFLINE: Final = Threshold(
    value=0,
    unit=Unit.COUNT,
    hold_seconds=MINUTE,
    reason="A partition without a leader takes and gives nothing. An election takes seconds.",
)
UNDER_REPLICATED: Final = Threshold(
    value=0,
    unit=Unit.COUNT,
    hold_seconds=5 * MINUTE,
    reason="A broker that restarts catches up within minutes; after that, one more failure loses the topic's writes.",
)
PROBE_FAILING: Final = Threshold(
    value=3,
    unit=Unit.COUNT,
    hold_seconds=0,
    window_seconds=5 * MINUTE,
    reason="The probe sends one event a minute: three of five are no accident.",
)
CLOCK_OFFSET: Final = Threshold(
    value=2,
    unit=Unit.SECONDS,
    hold_seconds=2 * MINUTE,
    reason="Lateness is told by brokers' stamps, so clocks must agree; a slow scrape looks like a second at most.",
)
UNIT_FAILED: Final = Threshold(
    value=1,
    unit=Unit.COUNT,
    hold_seconds=MINUTE,
    reason="A unit that systemd has given up does not come back by itself.",
)
UNIT_FLAPPING: Final = Threshold(
    value=3,
    unit=Unit.COUNT,
    hold_seconds=0,
    window_seconds=10 * MINUTE,
    reason="One crash that heals is what Restart= is for; three within ten minutes are a fault that comes again.",
)
DEAD_LETTERS_GROWING: Final = Threshold(
    value=0.01,
    unit=Unit.RATIO,
    hold_seconds=5 * MINUTE,
    window_seconds=10 * MINUTE,
    minimum=10,
    reason="The promise of correctness leaves 1 %; a sender that has changed its format is past it at once.",
)
DEAD_LETTER_BACKLOG: Final = Threshold(
    value=1000,
    unit=Unit.COUNT,
    hold_seconds=10 * MINUTE,
    window_seconds=DAY,
    reason="They are removed after 30 days, read or not; a thousand in a day are worth reading before that.",
)
NO_EXECUTOR: Final = Threshold(
    value=0,
    unit=Unit.COUNT,
    hold_seconds=2 * MINUTE,
    reason="A new executor is there after about ten seconds; a driver without any counts nothing.",
)
BATCHES_SLOW: Final = Threshold(
    value=2,
    unit=Unit.SECONDS,
    hold_seconds=10 * MINUTE,
    window_seconds=5 * MINUTE,
    reason=f"An event waits for the batch before its own: two of 2 s leave little of the {FRESH_SECONDS} s.",
)
POSTGRES_CONNECTIONS: Final = Threshold(
    value=0.8,
    unit=Unit.RATIO,
    hold_seconds=2 * MINUTE,
    reason="A client that is refused is an outage; job, API and exporter together use a fifth.",
)
POSTGRES_QUERY: Final = Threshold(
    value=120,
    unit=Unit.SECONDS,
    hold_seconds=MINUTE,
    reason="Our own transactions take milliseconds; a long one keeps rows from being cleaned and locks from others.",
)
POSTGRES_BLOAT: Final = Threshold(
    value=0.5,
    unit=Unit.RATIO,
    hold_seconds=30 * MINUTE,
    minimum=100_000,
    reason="Autovacuum cleans at a fifth; half of a table dead for half an hour means that it cannot.",
)
MEMORY_LOW: Final = Threshold(
    value=0.05,
    unit=Unit.RATIO,
    hold_seconds=5 * MINUTE,
    reason="Below that the kernel begins to end processes, and it does not ask which.",
)
STATE_GROWING: Final = Threshold(
    value=2,
    unit=Unit.RATIO,
    hold_seconds=HOUR,
    window_seconds=DAY,
    minimum=100_000,
    reason="The working state follows the audience: doubled in a day while no more events came means that it leaks.",
)
#: How much more may come in a day before a grown state is no surprise, as a ratio.
STATE_INPUT_GROWTH: Final = 1.5
RULE_FAILURES: Final = Threshold(
    value=0,
    unit=Unit.COUNT,
    hold_seconds=MINUTE,
    window_seconds=5 * MINUTE,
    reason="A rule that fails alarms nobody, so each failure is told.",
)
NOTIFICATION_FAILURES: Final = Threshold(
    value=0,
    unit=Unit.COUNT,
    hold_seconds=10 * MINUTE,
    window_seconds=5 * MINUTE,
    reason="A receiver that was away for a moment is tried again; one that stays away is a deaf one.",
)

#: For so long after an outage what followed from it may still page: errors are counted over a window, and what waited
#: for the service takes some seconds to be back. A minute in which that is evaluated and told is added.
OUTAGE_JUST_OVER_SECONDS: Final = API_ERROR_RATE.window_seconds + MINUTE
#: And for so long the tickets that count what happened over a longer window.
OUTAGE_LATELY_OVER_SECONDS: Final = (
    max(each.window_seconds for each in (UNIT_FLAPPING, PROBE_FAILING, BATCHES_SLOW)) + 2 * MINUTE
)


def span(seconds: int) -> str:
    """Return a time span as Prometheus writes it: ``40s``, ``5m``, ``6h``, ``30d``."""
    for size, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{letter}"
    return f"{seconds}s"


def words(seconds: int) -> str:
    """Return a time span as people write it: ``40 s``, ``5 min``, ``6 h``, ``30 days``."""
    for size, name in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds and seconds % size == 0:
            count = seconds // size
            return f"{count} {'day' if name == 'days' and count == 1 else name}"
    return f"{seconds} s"


def shown(value: float, unit: Unit) -> str:
    """Return a value as people write it: ``5 %``, ``60 s``, ``1,000``."""
    if unit is Unit.RATIO:
        return f"{value * 100:g} %"
    text = f"{value:,.0f}" if value == int(value) else f"{value:g}"
    return f"{text} s" if unit is Unit.SECONDS else text


# Requests that people make --------------------------------------------------------------------------------------------

#: Asked by machines: they say nothing about how people are served.
MACHINES_ROUTES: Final = "/health|/prometheus"
#: An event stream lasts as long as its reader stays.
ENDLESS_ROUTES: Final = "/live"
#: What people's requests are counted by, and how the durations of those that end are told from others.
REQUESTS: Final = f'streampulse_api_http_requests_total{{route!~"{MACHINES_ROUTES}"}}'
DURATIONS: Final = "streampulse_api_http_request_duration_seconds"
TIMED: Final = f'route!~"{MACHINES_ROUTES}|{ENDLESS_ROUTES}"'
