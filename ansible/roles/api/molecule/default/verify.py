"""Asserts over HTTP that the API answers, says when PostgreSQL is away, and comes back by itself."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

LINES = Path("/etc/streampulse/api.env").read_text(encoding="utf-8").splitlines()
ENV = {key: value.strip("'") for key, value in (line.split("=", 1) for line in LINES if "=" in line)}
ADDRESS = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()[0]


def get(path: str) -> tuple[int, object]:
    """Return the status and the decoded answer of a path."""
    try:
        with urllib.request.urlopen(f"http://{ADDRESS}:{ENV['STREAMPULSE_API_PORT']}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def becomes(status: int, seconds: float) -> object:
    """Wait until /health answers with a status and return the answer."""
    end = time.monotonic() + seconds
    while True:
        try:
            seen = get("/health")
        except OSError as error:
            seen = (0, str(error))
        if seen[0] == status:
            return seen[1]
        assert time.monotonic() < end, f"/health answers {seen} and not {status} within {seconds} s"
        time.sleep(0.2)


def said(unit: str, priority: str) -> list[str]:
    """Return what a unit's processes have written to the journal with exactly this priority since it was started."""
    invocation = subprocess.run(
        ["systemctl", "show", "--property=InvocationID", "--value", unit], check=True, capture_output=True, text=True
    ).stdout.strip()
    command = [
        "journalctl",
        f"--priority={priority}..{priority}",
        "--output=cat",
        f"_SYSTEMD_INVOCATION_ID={invocation}",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


assert becomes(200, 60) == {"ok": True}
for path in ("/metrics?minutes=2&limit=2", "/metrics/latest?limit=2", "/state?limit=2", "/streams/top?minutes=2&n=2"):
    status, answer = get(path)
    assert status == 200, f"{path} answers {status}: {answer}"
    assert isinstance(answer, dict), f"{path} answers {answer}"
    assert "rows" in answer, f"{path} answers {answer}"
assert get("/metrics?limit=0")[0] == 422

BASE = f"http://{ADDRESS}:{ENV['STREAMPULSE_API_PORT']}"
with urllib.request.urlopen(f"{BASE}/", timeout=10) as page:
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert b"streampulse" in page.read()
with urllib.request.urlopen(f"{BASE}/live", timeout=20) as stream:
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    lines = [stream.readline() for _ in range(6)]
    assert b"event: snapshot\n" in lines, lines
with urllib.request.urlopen(f"{BASE}/metrics/latest", timeout=10) as answer:
    assert float(answer.headers["X-Snapshot-Age"]) < 5, answer.headers.items()
# Each connection is a file; a thousand readers of /live need more than the usual limit.
limit = subprocess.run(
    ["systemctl", "show", "--property=LimitNOFILE", "--value", "streampulse-api"],
    check=True, capture_output=True, text=True,
).stdout.strip()  # fmt: skip
assert int(limit) >= 10_000, limit

units = subprocess.run(
    ["systemctl", "list-units", "--plain", "--no-legend", "postgresql@*"], check=True, capture_output=True, text=True
).stdout.split()
subprocess.run(["systemctl", "stop", units[0]], check=True)
try:
    away = becomes(503, 15)
    assert isinstance(away, dict), away
    assert away["ok"] is False, away
    assert away["error"], away
    assert get("/metrics/history?minutes=1000&stream_id=red")[0] == 503
finally:
    subprocess.run(["systemctl", "start", units[0]], check=True)
becomes(200, 15)
warnings = said("streampulse-api", "warning")
assert any(' msg="PostgreSQL is away" ' in line for line in warnings), warnings
assert any("stream_id=red" in line and " request_id=" in line for line in warnings), warnings
assert all(line.startswith("ts=") for line in warnings), warnings
SHOW = ["systemctl", "show", "--property=MainPID", "--value", "streampulse-api"]
killed = subprocess.run(SHOW, check=True, capture_output=True, text=True).stdout.strip()
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "streampulse-api"], check=True)
# Its workers answer for a moment longer than it is there.
deadline = time.monotonic() + 90
while subprocess.run(SHOW, check=True, capture_output=True, text=True).stdout.strip() in ("0", killed):
    assert time.monotonic() < deadline, "the API was not started again within 90 s"
    time.sleep(0.2)
becomes(200, 90)
