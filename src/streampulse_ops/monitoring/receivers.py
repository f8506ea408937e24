"""Alertmanager's running configuration: who is notified of a severity, and whether its alerts wait now."""

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import yaml

SEVERITIES: Final = ("page", "ticket", "info")
#: Integrations that notify the end of an alert by default; e-mail and Slack do not.
_ENDS_BY_DEFAULT: Final = ("webhook", "pagerduty", "opsgenie")
_WEEKDAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS: Final = tuple(name.lower() for name in calendar.month_name)


@dataclass(frozen=True)
class Way:
    """The way of one severity's alerts through Alertmanager."""

    #: Kinds of integrations, one for each of the receiver's; ``resolved``: those that also notify the end.
    notified: tuple[str, ...]
    resolved: tuple[str, ...]
    #: Why alerts wait now; empty: they are sent at once.
    waits: str


def way(configuration: str, severity: str, now: datetime) -> Way:
    """Return the way of a severity's alerts.

    :param configuration: Alertmanager's, as its API gives it.
    :raises KeyError: the configuration is another release's.
    """
    document = yaml.safe_load(configuration)
    receiver = _named(document["receivers"], severity)
    kinds = [
        (key.removesuffix("_configs"), each)
        for key, configs in sorted(receiver.items())
        if key.endswith("_configs")
        for each in configs
    ]
    route = next((each for each in document["route"]["routes"] if each["receiver"] == severity), None)
    if route is None:
        raise KeyError(severity)
    intervals = {each["name"]: each["time_intervals"] for each in document.get("time_intervals") or ()}
    active, muted = route.get("active_time_intervals") or (), route.get("mute_time_intervals") or ()
    waits = ""
    if active and not any(holds(each, now) for name in active for each in intervals[name]):
        waits = "outside working hours"
    if any(holds(each, now) for name in muted for each in intervals[name]):
        waits = "in a maintenance window"
    return Way(
        tuple(kind for kind, _ in kinds),
        tuple(kind for kind, each in kinds if each.get("send_resolved", kind in _ENDS_BY_DEFAULT)),
        waits,
    )


def _named(listed: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found = next((each for each in listed if each["name"] == name), None)
    if found is None:
        raise KeyError(name)
    return found


def holds(interval: Mapping[str, Any], now: datetime) -> bool:
    """Return whether one of Alertmanager's time intervals contains an instant; each of its fields must."""
    there = now.astimezone(ZoneInfo(interval["location"]) if interval.get("location") else UTC)
    minute = there.hour * 60 + there.minute
    times = interval.get("times") or [{"start_time": "00:00", "end_time": "24:00"}]
    return (
        any(_minute(each["start_time"]) <= minute < _minute(each["end_time"]) for each in times)
        and _within(interval.get("weekdays"), there.isoweekday() % 7, _WEEKDAYS)
        and _within(interval.get("months"), there.month, _MONTHS)
        and _within(interval.get("days_of_month"), there.day, (), calendar.monthrange(there.year, there.month)[1])
    )


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _within(ranges: Any, value: int, names: tuple[str, ...], last: int = 0) -> bool:
    """Return whether a value is in one of the ranges, such as ``a:b`` or ``a``; without ranges it is.

    :param names: names of the values, by their numbers.
    :param last: the last value, from which negative numbers count.
    """
    if not ranges:
        return True

    def number(text: str) -> int:
        found = names.index(text.lower()) if text.lower() in names else int(text)
        return found + last + 1 if found < 0 else found

    for each in ranges:
        first, _, until = str(each).partition(":")
        if number(first) <= value <= number(until or first):
            return True
    return False
