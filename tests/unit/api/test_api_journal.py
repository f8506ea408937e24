"""The API's counters before the first request."""

import subprocess
import sys

FRESH = """
from prometheus_client import generate_latest
from streampulse.api.app import create_app
from streampulse.core.settings import ApiSettings
create_app(ApiSettings(port=1))
print(generate_latest().decode())
"""


def test_failure_counters_of_every_route_exist_from_the_start() -> None:
    # A process of its own: other tests of this one have counted already.
    scrape = subprocess.run([sys.executable, "-c", FRESH], check=True, capture_output=True, text=True).stdout
    made = [line for line in scrape.splitlines() if line.startswith("streampulse_api_http_requests_total{")]
    for route in ("/metrics", "/metrics/latest", "/metrics/history", "/state", "/streams/top", "/live", "/health"):
        for status in (500, 503):
            name = f'streampulse_api_http_requests_total{{method="GET",route="{route}",status="{status}"}}'
            assert f"{name} 0.0" in made
    # Each worker has these, so there are not many.
    assert len(made) < 20
