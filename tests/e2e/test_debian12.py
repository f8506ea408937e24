"""The whole stack on Debian 12: another Python, JDK, PostgreSQL and Prometheus than on Debian 13."""

import re
import urllib.request

import pytest
from alerting import up_full
from stack import DEBIAN_12, Stack, until

pytestmark = [pytest.mark.machines, pytest.mark.parametrize("stack", [DEBIAN_12], indirect=True, scope="session")]


def test_up_and_up_again(stack: Stack) -> None:
    up_full(stack)
    assert "bookworm" in stack.ssh_ok("cat /etc/os-release")
    before = stack.totals()
    until(lambda: stack.totals()[1] > before[1] + 300, 20, "more events are counted")
    assert "all equal" in stack.inv_ok("verify")
    assert re.search(r"(?<!\d)0 changed", stack.inv("up", "--full").text)
    stack.inv_ok("smoke", "--full")
    with urllib.request.urlopen(f"http://{stack.address}:9187/metrics", timeout=10) as answer:
        figures = answer.read().decode()
    # This exporter's table metrics come from the role's own query.
    assert re.search(r'^pg_stat_user_tables_n_dead_tup\{[^}]*relname="stream_metrics_minute"', figures, re.MULTILINE)
