"""The API as its unit runs it: gunicorn, several workers, systemd's notifications, a graceful end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gunicorn_server
import httpx
import pytest
from conftest import Database
from ports import free_port
from postgres import WRITER
from stack import until

from streampulse import __version__

pytestmark = pytest.mark.postgres

#: Answered from the database, not from the snapshot.
SLOW = "/metrics?stream_id=__probe"


@pytest.fixture
def environment(database: Database, tmp_path: Path) -> dict[str, str]:
    return gunicorn_server.environment(database, tmp_path, workers=2, statement_timeout_ms=5000)


@pytest.fixture
def gunicorn(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with gunicorn_server.start(environment, tmp_path) as process:
        yield process


@pytest.fixture
def url(environment: dict[str, str]) -> str:
    return f"http://127.0.0.1:{environment['STREAMPULSE_API_PORT']}"


def values(url: str, prefix: str) -> dict[str, float]:
    text = httpx.get(url + "/prometheus", timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith(prefix)]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_metrics_are_right_with_several_workers_also_after_one_was_killed(
    gunicorn: subprocess.Popen[bytes], url: str, tmp_path: Path
) -> None:
    def workers() -> set[str]:
        return {path.stem.rpartition("_")[2] for path in (tmp_path / "metrics").glob("counter_*.db")}

    def logged() -> int:
        return sum("api.access" in line and "path=/state" in line for line in log.read_text().splitlines())

    log = tmp_path / "log"
    until(lambda: len(workers()) == 2, 20, "both workers have started")
    for _ in range(30):
        # A new connection each time, so that both workers get some.
        assert httpx.get(url + "/state", timeout=10).status_code == 200
    # A request is logged and counted after it was answered.
    until(lambda: logged() == 30, 10, "every request is logged")
    lines = log.read_text().splitlines()
    assert all(line.startswith("ts=") for line in lines), [line for line in lines if not line.startswith("ts=")]
    (build,) = values(url, "streampulse_api_build_info")
    assert f'version="{__version__}"' in build
    assert f'release="{Path(sys.prefix).resolve().parent.name}"' in build
    # Two workers of four connections each; the dead worker's connections do not count.
    assert values(url, "streampulse_api_pool_size") == {"streampulse_api_pool_size": 8}
    assert values(url, "streampulse_api_live_readers") == {"streampulse_api_live_readers": 0}
    (age,) = values(url, "streampulse_api_snapshot_age_seconds").values()
    assert 0 <= age < 5
    (read_at,) = values(url, "streampulse_api_snapshot_timestamp_seconds").values()
    assert abs(time.time() - read_at) < 10
    counted = values(url, 'streampulse_api_http_requests_total{method="GET",route="/state"')
    # Failure counters exist before the first failure.
    assert sorted(counted.values()) == [0, 0, 30]
    buckets = values(url, 'streampulse_api_http_request_duration_seconds_bucket{le="+Inf",route="/state"}')
    assert list(buckets.values()) == [30]
    children = Path(f"/proc/{gunicorn.pid}/task/{gunicorn.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(httpx.HTTPError):
            now = Path(f"/proc/{gunicorn.pid}/task/{gunicorn.pid}/children").read_text().split()
            if len(now) == 2 and children[0] not in now and values(url, "streampulse_api_pool_size").popitem()[1] == 8:
                break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    # Counters are monotonic: the dead worker's counts stay.
    assert values(url, 'streampulse_api_http_requests_total{method="GET",route="/state"') == counted


@contextlib.contextmanager
def asked(url: str) -> Iterator[list[str]]:
    """Ask on four kept connections while the body runs, and return the answers; each must be 200."""
    over, answers = threading.Event(), list[str]()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while not over.is_set():
                try:
                    answers.append(str(client.get("/state").status_code))
                except httpx.HTTPError as error:
                    answers.append(repr(error))
                time.sleep(0.005)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_hangup_replaces_workers_without_a_failed_request(gunicorn: subprocess.Popen[bytes], url: str) -> None:
    def workers() -> set[str]:
        return set(Path(f"/proc/{gunicorn.pid}/task/{gunicorn.pid}/children").read_text().split())

    before = workers()
    with asked(url) as answers:
        gunicorn.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while len(workers()) != 2 or workers() & before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert set(answers) == {"200"}
    assert gunicorn.poll() is None


@dataclass
class Systemd:
    """Starts the API and keeps what it stores, as systemd does for its unit."""

    variables: dict[str, str]
    channel: socket.socket
    log: BinaryIO

    def start(self, kept: int | None = None, **more: str) -> subprocess.Popen[bytes]:
        words = gunicorn_server.command()
        if kept is not None:
            words = ["bash", "-c", f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&{kept} {kept}<&-', "bash", *words]
        return subprocess.Popen(
            words, env={**self.variables, **more}, pass_fds=[kept] if kept else [], stdout=self.log, stderr=self.log
        )

    def told(self, message: str) -> list[int]:
        """Wait for a message and return the descriptors that came with it."""
        while True:
            text, descriptors, *_ = socket.recv_fds(self.channel, 1000, 1)
            if text.decode().startswith(message):
                return descriptors


@pytest.fixture
def systemd(environment: dict[str, str], tmp_path: Path) -> Iterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, (tmp_path / "log").open("wb") as log:
        channel.bind(environment["NOTIFY_SOCKET"])
        channel.settimeout(30)
        yield Systemd(environment, channel, log)


def test_a_restart_loses_no_request(systemd: Systemd, url: str) -> None:
    first = systemd.start()
    (kept,) = systemd.told("FDSTORE=1\nFDNAME=http")
    with asked(url) as answers:
        time.sleep(5)
        first.terminate()
        assert first.wait(timeout=20) == 0
        second = systemd.start(kept)
        systemd.told("READY=1")
        before = len(answers)
        while len(answers) < before + 100:
            time.sleep(0.1)
    second.terminate()
    second.wait(timeout=20)
    os.close(kept)
    assert set(answers) == {"200"}


def test_a_restart_with_another_port_lets_the_former_one_go(systemd: Systemd, url: str) -> None:
    first = systemd.start()
    (kept,) = systemd.told("FDSTORE=1")
    first.terminate()
    assert first.wait(timeout=20) == 0
    port = str(free_port())
    second = systemd.start(kept, STREAMPULSE_API_PORT=port)
    systemd.told("FDSTOREREMOVE=1\nFDNAME=http")
    os.close(kept)
    systemd.told("FDSTORE=1")
    assert httpx.get(f"http://127.0.0.1:{port}/state", timeout=60).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    second.terminate()
    assert second.wait(timeout=20) == 0


def test_a_request_under_way_ends_before_the_service_does(
    gunicorn: subprocess.Popen[bytes], url: str, database: Database
) -> None:
    assert httpx.get(url + "/state", timeout=10).status_code == 200
    answers: list[int] = []
    with contextlib.closing(database.server.connect(WRITER, database.name)) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE stream_metrics_minute IN ACCESS EXCLUSIVE MODE")
        asking = threading.Thread(target=lambda: answers.append(httpx.get(url + SLOW, timeout=20).status_code))
        asking.start()
        time.sleep(0.5)
        gunicorn.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert answers == []
        cursor.execute("COMMIT")
    asking.join(timeout=20)
    assert answers == [200]
    assert gunicorn.wait(timeout=20) == 0


@pytest.mark.parametrize("name", ["STREAMPULSE_API_PORT", "STREAMPULSE_POSTGRES_PASSWORD"])
def test_a_missing_setting_ends_the_start_in_one_line(environment: dict[str, str], name: str) -> None:
    del environment[name]
    ended = subprocess.run(
        gunicorn_server.command(), env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"streampulse: {name}: ")
    assert ended.stderr.count("\n") == 1
