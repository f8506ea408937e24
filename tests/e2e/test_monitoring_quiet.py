"""A healthy stack wakes nobody, and neither does a crash that heals itself or an outage that is over.

The tests build on each other, in this order.
"""

from __future__ import annotations

import time

import pytest
from alerting import (
    ALERT_SECONDS,
    CALM_SECONDS,
    PAGES,
    POSTGRES,
    alerts,
    calm,
    held_down,
    names,
    query,
    up_full,
    waking,
)
from stack import WATCHED, Stack, until

pytestmark = [
    pytest.mark.machines,
    pytest.mark.parametrize("stack", [WATCHED], indirect=True, scope="session"),
]

#: A crash that is over within this has healed itself.
HEALED_SECONDS = 30
#: Longer than the windows that errors are counted over, and than a group waits for its next notification.
AFTERWARDS_SECONDS = 150
#: Until errors have been many enough for long enough: what they are counted over, and how long they must last.
ERRORS_SECONDS = 300
#: Longer than a crash takes to heal, than an alert takes to fire and than a notification waits for its group.
WATCHED_SECONDS = 80


@pytest.fixture(scope="module", autouse=True)
def running(stack: Stack) -> None:
    up_full(stack)


def test_the_probe_is_exact(stack: Stack) -> None:
    exact = 'streampulse_probe_events_total{outcome="exact"}'
    until(lambda: bool(query(stack, f"{exact} > 0")), 150, "an event of the probe came out exactly")
    assert not query(stack, 'streampulse_probe_events_total{outcome!="exact"} > 0')


def test_a_healthy_stack_has_no_alert_but_the_dead_mans_switch(stack: Stack) -> None:
    calm(stack)

    def only_the_switch() -> bool:
        found = alerts(stack)
        # Of severity none is what tells nobody anything: the switch, and that something was down a moment ago.
        return "Watchdog" in names(found, severity="none") and names(found) == names(found, severity="none")

    until(only_the_switch, CALM_SECONDS, "no page and no ticket is left")


def test_nobody_is_woken_again_by_what_is_over(stack: Stack) -> None:
    left = calm(stack)
    woken = {PAGES[POSTGRES]}
    with held_down(stack, POSTGRES):
        until(lambda: woken <= waking(stack), ALERT_SECONDS, "PostgresDown in Alertmanager")
        # It follows, and nobody is told; when PostgreSQL is back, the errors are still in the window.
        until(lambda: "ApiErrorRateHigh" in names(alerts(stack)), ERRORS_SECONDS, "errors page, and are kept quiet")
        assert waking(stack) - left == woken
    seen, begun = set[str](), time.monotonic()
    while time.monotonic() < begun + AFTERWARDS_SECONDS:
        time.sleep(2)
        seen |= waking(stack)
    assert seen - left <= woken
    assert not waking(stack) & woken


@pytest.mark.parametrize("unit", ["streampulse-job", "kafka"])
def test_a_crash_that_heals_itself_wakes_nobody(stack: Stack, unit: str) -> None:
    took: list[float] = []
    for _ in range(3):
        left = calm(stack)
        stack.ssh_ok(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
        seen, begun, back = set[str](), time.monotonic(), 0.0
        while time.monotonic() < begun + WATCHED_SECONDS:
            time.sleep(2)
            found = alerts(stack)
            # Also what is kept quiet by something that has just been down.
            seen |= names([alert for alert in found if alert["labels"]["service"] != "slo"], severity="page")
            seen |= waking(stack)
            if not back and stack.ssh(f"systemctl is-active {unit}").out.strip() == "active":
                back = time.monotonic() - begun
        took.append(back or WATCHED_SECONDS)
        if took[-1] <= HEALED_SECONDS:
            assert seen <= left
            return
        # This machine is so busy that it was away for longer than a crash takes to heal, and a page is right.
    pytest.fail(f"{unit} took {took} s to be back")


def test_nothing_was_lost(stack: Stack) -> None:
    calm(stack)
    assert "all equal" in stack.inv_ok("verify")
