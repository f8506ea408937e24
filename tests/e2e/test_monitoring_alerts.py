"""Alerts of a booted machine: none for a healed crash or the end of an outage. Drills show those of each outage.

The tests build on each other, in this order: crashes come before outages, whose budgets burn for some minutes.
"""

import time

import pytest
from alerting import ALERT_SECONDS, CALM_SECONDS, POSTGRES, alerts, calm, held_down, names, query, up_full, waking
from stack import DEBIAN_13, Stack, until

pytestmark = [pytest.mark.machines, pytest.mark.parametrize("stack", [DEBIAN_13], indirect=True, scope="session")]

# A shorter crash counts as healed.
HEALED_SECONDS = 30
# Longer than a crash takes to heal, than an alert takes to fire and than a notification waits for its group.
WATCHED_SECONDS = 80
# Until errors have been many enough for long enough: the window that they are counted over and their minimum duration.
ERRORS_SECONDS = 300
# Longer than its errors are still counted, and a group then waits for its next notification.
AFTERWARDS_SECONDS = 100


@pytest.fixture(scope="module", autouse=True)
def running(stack: Stack) -> None:
    up_full(stack)


def test_a_healthy_stack_has_exact_probe_events_and_no_alert_but_the_watchdog(stack: Stack) -> None:
    exact = 'streampulse_probe_events_total{outcome="exact"}'
    until(lambda: bool(query(stack, f"{exact} > 0")), 150, "an event of the probe came out exactly")
    assert not query(stack, 'streampulse_probe_events_total{outcome!="exact"} > 0')
    calm(stack)

    def only_the_watchdog() -> bool:
        found = alerts(stack)
        # Alerts of severity none notify nobody: the watchdog, and records of past outages.
        return "Watchdog" in names(found, severity="none") and names(found) == names(found, severity="none")

    until(only_the_watchdog, CALM_SECONDS, "no page and no ticket is left")


@pytest.mark.parametrize("unit", ["streampulse-job", "kafka"])
def test_a_crash_that_heals_itself_pages_nobody(stack: Stack, unit: str) -> None:
    took: list[float] = []
    for _ in range(3):
        left = calm(stack)
        stack.ssh_ok(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
        seen, begun, back = set[str](), time.monotonic(), 0.0
        while time.monotonic() < begun + WATCHED_SECONDS:
            time.sleep(2)
            found = alerts(stack)
            # Includes alerts that a past outage inhibits.
            seen |= names([alert for alert in found if alert["labels"]["service"] != "slo"], severity="page")
            seen |= waking(stack)
            if not back and stack.ssh(f"systemctl is-active {unit}").out.strip() == "active":
                back = time.monotonic() - begun
        took.append(back or WATCHED_SECONDS)
        if took[-1] <= HEALED_SECONDS:
            assert seen <= left
            return
        # On a busy machine the crash took longer to heal, and a page is right.
    assert max(took) < WATCHED_SECONDS, f"{unit} took {took} s to be back"
    pytest.skip(f"busy machine: {unit} took {took} s to be back, so a page was right")


def test_the_end_of_an_outage_pages_nobody_again(stack: Stack) -> None:
    left = calm(stack)
    page = {"PostgresDown"}
    with held_down(stack, POSTGRES):
        until(lambda: page <= waking(stack), ALERT_SECONDS, "PostgresDown in Alertmanager")
        # A consequence, which is inhibited. Its errors are still in the window when PostgreSQL is back.
        until(lambda: "ApiErrorRateHigh" in names(alerts(stack)), ERRORS_SECONDS, "the API's errors fire")
        assert waking(stack) - left == page
    seen, begun = set[str](), time.monotonic()
    while time.monotonic() < begun + AFTERWARDS_SECONDS:
        time.sleep(2)
        seen |= waking(stack)
    assert seen - left <= page
    assert not waking(stack) & page


def test_nothing_was_lost(stack: Stack) -> None:
    calm(stack)
    assert "all equal" in stack.inv_ok("verify")
