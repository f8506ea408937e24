"""The recording rules: how each promise is measured, over every window that an alert or a page asks for.

For each indicator two series are recorded once a minute, events and errors a second over five minutes. Everything
longer is a sum of these, so that thirty days cost 43,200 samples for each indicator and not ten times as many for each
label of the raw counters. A window without events has no ratio at all (never NaN).
"""

from __future__ import annotations

from typing import Final

from streampulse.core import limits as values
from streampulse.core.limits import DAY, DURATIONS, HOUR, MACHINES_ROUTES, MINUTE, REQUESTS, TIMED, span
from streampulse_ops.monitoring.model import Group, Recorded

WINDOWS: Final = (values.SHARE_SECONDS, 30 * MINUTE, HOUR, 2 * HOUR, 6 * HOUR, DAY, 3 * DAY, values.PERIOD_SECONDS)
#: Those that a burn is judged by, and that a measurement of a few minutes must not fill.
LONG_WINDOWS: Final = tuple(burn.long_seconds for burn in values.BURNS)

#: What people's requests are counted by, and how the durations of those that end are told from others.
_FAILED_REQUESTS: Final = f'streampulse_api_http_requests_total{{route!~"{MACHINES_ROUTES}",status=~"5.."}}'
_PROBE_DURATIONS: Final = "streampulse_probe_api_request_duration_seconds"


def _rate(selector: str) -> str:
    return f"sum(rate({selector}[{span(values.SHARE_SECONDS)}]))"


def _missed(everything: str, good: str) -> str:
    """Return what of everything was not good: never less than nothing, whatever rounding makes of it."""
    return f"clamp_min(\n  {_rate(everything)}\n  -\n  {_rate(good)},\n  0\n)"


def _failed(bad: str, everything: str) -> str:
    """Return what was bad; where nothing ever was, its series are not there, and that is zero."""
    return f"{_rate(bad)}\nor\n{_rate(everything)} * 0"


def _bucket(seconds: float) -> str:
    """Return a matcher of a bucket's bound as any client writes it."""
    short, long = f"{seconds:g}", str(float(seconds))
    return f'le="{short}"' if short == long else f'le=~"{short}|{long}"'.replace(".", r"\\.")


#: Of each indicator (slo, sli): events a second, and of these the bad ones.
_MEASURED: Final[dict[tuple[str, str], tuple[str, str]]] = {
    ("freshness", "probe"): (
        _rate("streampulse_probe_end_to_end_seconds_count"),
        _missed(
            "streampulse_probe_end_to_end_seconds_count",
            f"streampulse_probe_end_to_end_seconds_bucket{{{_bucket(values.FRESH_SECONDS)}}}",
        ),
    ),
    ("correctness", "dead_letters"): (
        _rate("streampulse_job_records_total"),
        _failed("streampulse_job_dead_letters_total", "streampulse_job_records_total"),
    ),
    ("correctness", "probe"): (
        _rate('streampulse_probe_events_total{outcome!~"unsent|unread"}'),
        _failed(
            'streampulse_probe_events_total{outcome!~"exact|unsent|unread"}',
            'streampulse_probe_events_total{outcome!~"unsent|unread"}',
        ),
    ),
    ("availability", "api"): (_rate(REQUESTS), _failed(_FAILED_REQUESTS, REQUESTS)),
    ("availability", "probe"): (
        _rate("streampulse_probe_api_requests_total"),
        _failed(
            # What is refused is answered, and well: with a key of before, or asked too often.
            'streampulse_probe_api_requests_total{outcome!~"ok|refused"}',
            "streampulse_probe_api_requests_total",
        ),
    ),
    ("latency", "api"): (
        _rate(f"{DURATIONS}_count{{{TIMED}}}"),
        _missed(
            f"{DURATIONS}_count{{{TIMED}}}",
            f"{DURATIONS}_bucket{{{TIMED},{_bucket(values.QUICK_SECONDS)}}}",
        ),
    ),
    ("latency", "probe"): (
        _rate(f"{_PROBE_DURATIONS}_count"),
        _missed(f"{_PROBE_DURATIONS}_count", f"{_PROBE_DURATIONS}_bucket{{{_bucket(values.QUICK_SECONDS)}}}"),
    ),
    # Of each second that was looked at, the part that was bad.
    ("completeness", "lag"): (
        f"count_over_time(pipeline:behind:bool[{span(values.SHARE_SECONDS)}]) > bool 0",
        f"avg_over_time(pipeline:behind:bool[{span(values.SHARE_SECONDS)}])",
    ),
}


def groups() -> tuple[Group, ...]:
    """Return the recording rules."""
    return (
        Group("behind", (_behind(),)),
        # One group, so that each rule sees what those before it have just recorded.
        Group("promises", (*_promises(), *_indicators(), *_windows()), values.RECORD_SECONDS),
    )


def _behind() -> Recorded:
    return Recorded(
        "pipeline:behind:bool",
        # A probe that runs and cannot tell counts as behind. One that is away tells nothing, and its own alert says so.
        f'max(streampulse_pipeline_lag_seconds > bool {values.COMPLETE_SECONDS})\nor\nmax(up{{job="probe"}}) == 1',
        f"1 while the pipeline is behind by more than {values.COMPLETE_SECONDS} s, or the probe cannot tell",
    )


def _promises() -> list[Recorded]:
    rules = []
    for slo in values.OBJECTIVES:
        rules.append(
            Recorded("slo:objective:ratio", f"vector({slo.objective:g})", "share that must be good", {"slo": slo.name}),
        )
        for sli in slo.indicators:
            labels = {"slo": slo.name, "sli": sli.name}
            meaning = "how many bad events of the promise one bad event of the measurement is"
            rules.append(Recorded("sli:weight:ratio", f"vector({slo.weight(sli):g})", meaning, labels))
            meaning = "events that a window must hold before it can alarm"
            rules.append(Recorded("sli:minimum_events:count", f"vector({sli.minimum_events})", meaning, labels))
    return rules


def _indicators() -> list[Recorded]:
    rules = []
    for slo in values.OBJECTIVES:
        for sli in slo.indicators:
            events, errors = _MEASURED[slo.name, sli.name]
            labels = {"slo": slo.name, "sli": sli.name}
            rules.append(Recorded("sli:events:rate5m", events, "events a second, over five minutes", labels))
            rules.append(Recorded("sli:errors:rate5m", errors, "bad ones of these a second, over five minutes", labels))
    return rules


def _windows() -> list[Recorded]:
    rules = []
    for seconds in WINDOWS:
        name = span(seconds)
        rules.append(Recorded(f"sli:error_ratio:rate{name}", _ratio(seconds), "share of bad events of one measurement"))
        rules.append(
            Recorded(
                f"slo:error_ratio:rate{name}",
                f"max by (slo) (\n  clamp_max(sli:error_ratio:rate{name} * sli:weight:ratio, 1)\n)",
                "share of bad events, of two measurements the worse one",
            )
        )
        if seconds != values.PERIOD_SECONDS:
            rules.append(
                Recorded(
                    f"slo:burn_rate:rate{name}",
                    _burn(seconds),
                    "how many times quicker than what would last for the whole period the budget was spent",
                )
            )
    rules.append(
        Recorded(
            "slo:error_budget_remaining:ratio30d",
            f"1 - {_weighed(values.PERIOD_SECONDS, minimum=False)}",
            "what is left of the budget of 30 days: 1 untouched, 0 all spent, less than 0 overspent",
        )
    )
    return rules


def _ratio(seconds: int) -> str:
    if seconds == values.SHARE_SECONDS:
        return "sli:errors:rate5m / (sli:events:rate5m > 0)"
    window = span(seconds)
    return f"sum_over_time(sli:errors:rate5m[{window}])\n/\n(sum_over_time(sli:events:rate5m[{window}]) > 0)"


def _burn(seconds: int) -> str:
    if seconds in LONG_WINDOWS:
        return _weighed(seconds, minimum=True)
    return f"slo:error_ratio:rate{span(seconds)} / on (slo) (1 - slo:objective:ratio)"


def _weighed(seconds: int, minimum: bool) -> str:
    """Return the part of the budget of a window that was spent in it.

    A window that was measured for a part only has spent that part at most: two bad samples after a start are no
    catastrophe of an hour.
    """
    window = span(seconds)
    measured = f"clamp_max(count_over_time(sli:events:rate5m[{window}]) / {seconds // values.RECORD_SECONDS}, 1)"
    lines = [
        "max by (slo) (",
        f"    sli:error_ratio:rate{window} * sli:weight:ratio",
        f"  * {measured}",
    ]
    if minimum:
        lines += [
            "  and",
            f"    sum_over_time(sli:events:rate5m[{window}]) * {values.RECORD_SECONDS} >= sli:minimum_events:count",
        ]
    lines += [")", "/ on (slo)", "(1 - slo:objective:ratio)"]
    return "\n".join(lines)
