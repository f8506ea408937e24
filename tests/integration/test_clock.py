"""``streampulse clock`` under libfaketime, against a server of NTP and against other hosts' services."""

import http.server
import json
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streampulse.host.check import kafka as check
from streampulse.host.check.host import Host
from streampulse_ops.monitoring.findings import Finding, explained

_NTP_EPOCH = 2_208_988_800
_SILENT = "127.0.0.1:9"


@contextmanager
def time_server(leap: int = 0) -> Iterator[str]:
    """Answer NTP requests with this machine's time and yield the address."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked, server = self.request
            now = struct.pack("!II", int(time.time()) + _NTP_EPOCH, 0)
            head = struct.pack("!BBBbIII", leap << 6 | 4 << 3 | 4, 2, 0, -20, 0, 0, 0)
            server.sendto(head + now + asked[40:48] + now + now, self.client_address)

    with socketserver.UDPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def host(ahead: float = 0) -> Iterator[str]:
    """Serve HTTP with a clock that is some seconds ahead and yield the URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + ahead)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def look(folder: Path, fake: str, servers: list[str], *urls: str) -> subprocess.CompletedProcess[str]:
    file = folder / "clocks.json"
    hosts = {f"host-{number}": ["http://127.0.0.1:9/", url] for number, url in enumerate(urls, start=1)}
    file.write_text(json.dumps({"time_servers": servers, "hosts": hosts}))
    command = ["faketime", "-f", fake, sys.executable, "-m", "streampulse.host.cli", "clock", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("fake", "code"), [("+0s", 0), ("+50s", 0), ("+70s", 1), ("-1d", 1)])
def test_a_server_of_ntp_decides(tmp_path: Path, fake: str, code: int) -> None:
    with time_server() as server, host(ahead=86_400) as wrong:
        done = look(tmp_path, fake, [server], wrong)
    assert done.returncode == code, done.stderr
    assert server in done.stdout + done.stderr
    assert "host-1" not in done.stdout + done.stderr


@pytest.mark.parametrize(("fake", "code"), [("+0s", 0), ("+2h", 1)])
def test_most_other_hosts_decide_where_no_server_answers(tmp_path: Path, fake: str, code: int) -> None:
    with time_server(leap=3) as unsynchronised, host() as one, host() as two, host(ahead=7_200) as three:
        done = look(tmp_path, fake, [unsynchronised], one, two, three, "http://127.0.0.1:9/")
    assert done.returncode == code, done.stderr
    assert ("timedatectl" in done.stderr) == (code == 1)
    assert "Traceback" not in done.stderr


def test_a_host_that_nobody_answers_starts_with_a_warning(tmp_path: Path) -> None:
    done = look(tmp_path, "-1d", [_SILENT], "http://127.0.0.1:9/")
    assert done.returncode == 0
    assert done.stderr == "warning: this host's clock is not checked: no other clock answers\n"


class Kafka(Host):
    """A host whose broker has a state."""

    def __init__(self, state: str) -> None:
        self._state = state

    def properties(self, unit: str) -> dict[str, str]:
        return {"Id": unit, "ActiveState": self._state}


@pytest.mark.parametrize(
    ("state", "ahead", "codes"), [("activating", 3_600, ["SP-CLOCK-002"]), ("activating", 0, []), ("active", 3_600, [])]
)
def test_doctor_names_the_clock_of_a_broker_that_stays_down_before_the_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, ahead: float, codes: list[str]
) -> None:
    file = tmp_path / "clocks.json"
    monkeypatch.setattr(check, "CLOCKS_FILE", file)
    with host(ahead) as other:
        file.write_text(json.dumps({"time_servers": [_SILENT], "hosts": {"other": [other]}}))
        found = list(check.clock(Kafka(state), {"kafka": "kafka.service"}))
    assert [each.code for each in found] == codes
    down = Finding("units.kafka", "host", ok=False, code="SP-UNIT-002")
    clock = [Finding(each.check, "host", ok=False, code=each.code) for each in found]
    assert [each.code for each in explained([down, *clock])] == [*codes, "SP-UNIT-002"]
