"""The base stack from nothing on Debian 13. The tests build on each other, in this order."""

import json
import os
import re
import signal
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from browser import chromium, opened
from kafka import KafkaProducer
from live_page import LIVE, expect_equal, figure
from playwright.sync_api import Browser
from stack import DEBIAN_13, STATE, Stack, until

pytestmark = [pytest.mark.machines, pytest.mark.parametrize("stack", [DEBIAN_13], indirect=True, scope="session")]

SERVICES = ["postgres", "kafka", "spark-master", "spark-worker", "job", "generator", "api"]


def test_up_from_nothing(stack: Stack) -> None:
    said = stack.inv_ok("up", seconds=900)
    assert re.search(r"smoke +\d+ events sent, 1 row exact, API agrees", said)
    assert re.search(rf"up in .*http://{re.escape(stack.address)}:8000/", said)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_the_page_shows_the_apis_numbers(stack: Stack, browser: Browser) -> None:
    url = f"http://{stack.address}:8000"
    with opened(browser, url) as watched:
        watched.page.wait_for_selector(LIVE)
        before = figure(watched.page, "viewers")
        until(lambda: figure(watched.page, "viewers") != before, 30, "the page moves with the events")
        # Nothing moves while both are read.
        stack.ssh_ok("systemctl stop streampulse-generator")
        try:
            for by in ("active_viewers", "chat_messages", "donations_usd"):
                watched.page.locator(f".ranking [data-by={by}]").click()
                expect_equal(watched.page, url, by, seconds=60)
        finally:
            stack.ssh_ok("systemctl start streampulse-generator")
        assert watched.complaints == []
        assert watched.hosts == {stack.address}


def test_the_numbers_grow_and_are_right(stack: Stack) -> None:
    before = stack.totals()
    until(lambda: stack.totals()[1] > before[1] + 300, 20, "more events are counted")
    assert "all equal" in stack.inv_ok("verify")


def test_hostile_records_are_decided_as_the_contract_says(stack: Stack) -> None:
    now = datetime.now(UTC)

    def event(ago: float, kind: str = "viewer_join", **fields: object) -> bytes:
        document = {
            "event_id": str(uuid.uuid4()),
            "ts": (now - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "event_type": kind,
            "stream_id": "hostile \U0001f3a5 <b>'",
            "user_id": "u",
        }
        return json.dumps(document | fields).encode()

    key = "hostile \U0001f3a5 <b>'".encode()
    twice = event(1, "donation", amount_usd="0.10")
    records: list[tuple[bytes | None, bytes]] = [
        (key, event(2)),
        (key, twice),
        (key, twice),
        (key, event(540, "chat_message", message_len=3)),
        (key, event(-3600)),  # from the future
        (key, event(1, "donation", amount_usd="NaN")),
        (b"other key", event(1)),
        (None, b"not json"),
        (b"\xff", b"\xff\x00"),
        (key, b"[" * 100_000),
        (key, os.urandom(250_000)),
    ]
    producer = KafkaProducer(bootstrap_servers=f"{stack.address}:9092", max_request_size=1_000_000)
    sent = [producer.send("stream.events", key=record_key, value=value) for record_key, value in records]
    positions = [future.get(timeout=20) for future in sent]
    producer.close()
    for position in positions:
        until(lambda at=position: stack.next_offset(at.partition) > at.offset, 30, "the records are read")  # type: ignore[misc]
    rows = stack.get(f"/metrics/history?minutes=30&stream_id={quote(key)}")["rows"]
    assert sum(row["donations"] for row in rows) == 1
    assert sum(row["chat_messages"] for row in rows) == 1
    assert "all equal" in stack.inv_ok("verify")
    assert "invalid" in stack.inv_ok("peek", "stream.events.dlq", "-n", "20")


def test_looking_finds_a_healthy_stack(stack: Stack) -> None:
    table = stack.inv_ok("status")
    for service in SERVICES:
        assert re.search(rf"^\W*{service}\b", table, re.MULTILINE), table
    assert not re.search(r"^\W*prometheus\b", table, re.MULTILINE), "shown before it is there"
    stack.inv_ok("doctor")
    findings = json.loads(stack.inv_ok("doctor", "--json"))
    assert findings
    assert "Started" in stack.inv_ok("logs", "kafka") or "INFO" in stack.inv_ok("logs", "kafka")


def test_one_service_is_stopped_started_and_restarted(stack: Stack) -> None:
    assert "1 would be" in stack.inv_ok("stop", "api", "--dry-run")
    assert stack.get("/health")["ok"] is True
    assert "1 changed" in stack.inv_ok("stop", "api")
    assert "0 changed" in stack.inv_ok("stop", "api")
    assert stack.inv("status").code == 1
    assert "1 changed" in stack.inv_ok("start", "api")
    assert "1 changed" in stack.inv_ok("restart", "kafka", "--rolling")
    assert "1 changed" in stack.inv_ok("restart", "job", "--rolling")
    stack.inv_ok("status")


def test_a_killed_machine_keeps_its_data_through_an_interrupted_up(stack: Stack) -> None:
    before = stack.totals()
    # The machine's own PID 1, seen from outside: as if its power were cut.
    for pid in stack.init_pids():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not stack.machine_pids(), 20, "the machine is gone")
    assert stack.inv("status").code == 1
    running = stack.start("up")
    until(lambda: bool(stack.machine_pids()), 60, "the machine is started")
    time.sleep(3)
    os.killpg(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=120)
    assert running.returncode not in (0, None)
    assert "Traceback" not in said
    stack.inv_ok("up")
    assert stack.totals() > before
    assert "all equal" in stack.inv_ok("verify")


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "dark"), ("phone", "light")])
def test_the_documents_pictures(stack: Stack, browser: Browser, size: str, scheme: str, tmp_path: Path) -> None:
    """Real events of some minutes. STREAMPULSE_SCREENSHOTS names a folder that keeps the pictures."""
    picture = Path(os.environ.get("STREAMPULSE_SCREENSHOTS", tmp_path)) / f"live-page-{size}-{scheme}.png"
    with opened(browser, f"http://{stack.address}:8000", size, scheme) as watched:
        watched.page.wait_for_selector(LIVE)
        watched.page.wait_for_selector("#viewers-chart canvas")
        watched.page.wait_for_timeout(3000)
        watched.page.screenshot(path=picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_reset_makes_new_state_and_blocks_a_second_task(stack: Stack) -> None:
    assert "would" in stack.inv_ok("reset", "--dry-run")
    before = stack.totals()
    until(lambda: stack.totals()[0] > before[0], 20, "a dry run stops nothing")
    assert stack.inv("reset").code == 1  # nobody is there to ask
    reset = stack.start("reset", "--yes")
    try:
        until(lambda: "reset" in (STATE / stack.name / "lock").read_text(), 30, "the reset has the lock")
        second = stack.inv("up")
        assert second.code == 1
        assert "inv reset" in second.text
        assert "Traceback" not in second.text
    finally:
        said, _ = reset.communicate(timeout=600)
    assert reset.returncode == 0, said
    assert "all equal" in stack.inv_ok("verify")
