"""Drills on booted machines: what each one breaks is told, named by doctor, and repaired by its runbook."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from alerting import up_full
from stack import DEBIAN_12, PAGER, Stack

from streampulse_ops.runbooks import drills

pytestmark = [pytest.mark.machines, pytest.mark.parametrize("stack", [DEBIAN_12], indirect=True, scope="session")]

#: CI has 12 minutes: three rounds. `inv drill all` runs all of them on the machines of an environment. The stack is one
#: machine, which drills that need another one leave out.
ROUNDS = [[each for each in one if not each.needs] for one in drills.named("all")]
ROUNDS = ROUNDS[: None if os.environ.get("STREAMPULSE_LONG_TESTS") else 3]


class Pager(ThreadingHTTPServer):
    """Stands for a pager: receives Alertmanager's notifications."""

    def __init__(self) -> None:
        super().__init__(("", PAGER), _Handler)
        self.told: set[tuple[str, str]] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Pager

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told |= {(each["labels"]["alertname"], each["status"]) for each in body["alerts"]}
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any, **__: Any) -> None:
        return


@pytest.fixture(scope="module")
def pager() -> Iterator[Pager]:
    server = Pager()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module", autouse=True)
def running(stack: Stack, pager: Pager) -> None:  # noqa: ARG001 - the receiver answers from the first alert on
    if not stack.machine_pids():
        up_full(stack)


@pytest.mark.parametrize("chosen", ROUNDS, ids=lambda each: " and ".join(drill.name for drill in each))
def test_a_runbook_repairs_what_its_drill_breaks(stack: Stack, pager: Pager, chosen: list[drills.Drill]) -> None:
    done = stack.inv("drill", ",".join(each.name for each in chosen), seconds=900)
    # The end says what failed, and the job's log why.
    assert done.code == 0, done.text[-3000:] + stack.ssh("journalctl --unit=streampulse-job --no-pager --lines=40").text
    shown = stack.inv_ok("runbook", "show", chosen[0].name)
    assert "recovered after" in shown
    assert {(each.alert, "firing") for each in chosen if each.alert} <= pager.told
