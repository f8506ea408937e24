"""The API's counters before the first request."""

from scrape import fresh

FRESH = """
from streampulse.api.app import create_app
from streampulse.core.settings import ApiSettings
create_app(ApiSettings(port=1))
"""


def test_failure_counters_of_every_route_exist_from_the_start() -> None:
    made = [line for line in fresh(FRESH).splitlines() if line.startswith("streampulse_api_http_requests_total{")]
    for route in ("/metrics", "/metrics/latest", "/metrics/history", "/state", "/streams/top", "/live", "/health"):
        for status in (500, 503):
            name = f'streampulse_api_http_requests_total{{method="GET",route="{route}",status="{status}"}}'
            assert f"{name} 0.0" in made
    # Each worker has these, so there are not many.
    assert len(made) < 20
