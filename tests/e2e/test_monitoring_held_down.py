"""Each service that is held down has its own alert and no unrelated page. The tests build on each other."""

from __future__ import annotations

import time

import pytest
from alerting import ALERT_SECONDS, PAGES, POSTGRES, TICKETS, alerts, calm, held_down, names, up_full, waking
from stack import DEBIAN_13, Stack, until

pytestmark = [
    pytest.mark.machines,
    pytest.mark.parametrize("stack", [DEBIAN_13], indirect=True, scope="session"),
]

# Held down together where neither has anything to do with the other; each round takes minutes.
# What is just over keeps quiet for some minutes what follows from it: nothing of that comes after it here.
ROUNDS = [
    ["streampulse-job", "streampulse-generator", "prometheus-node-exporter", "prometheus-postgres-exporter"],
    ["spark-worker", "streampulse-api"],
    ["spark-master", "streampulse-probe"],
    ["kafka"],
]


@pytest.fixture(scope="module", autouse=True)
def running(stack: Stack) -> None:
    up_full(stack)


def test_every_service_is_held_down_once(stack: Stack) -> None:  # noqa: ARG001 - the module is parametrized by it
    assert sorted([POSTGRES, *(unit for units in ROUNDS for unit in units)]) == sorted([*PAGES, *TICKETS])


@pytest.mark.parametrize("units", ROUNDS, ids=" and ".join)
def test_held_down(stack: Stack, units: list[str]) -> None:
    pages = {PAGES[unit] for unit in units if unit in PAGES}
    tickets = {TICKETS[unit] for unit in units if unit in TICKETS}
    left = calm(stack)
    with held_down(stack, *units):
        until(
            lambda: pages <= waking(stack) and tickets <= names(alerts(stack), severity="ticket"),
            ALERT_SECONDS,
            f"{', '.join(sorted(pages | tickets))} in Alertmanager",
        )
        # What follows from it comes a little later; none of that may wake anybody as well.
        time.sleep(20)
        assert waking(stack) - left == pages


def test_nothing_was_lost(stack: Stack) -> None:
    calm(stack)
    assert "all equal" in stack.inv_ok("verify")
