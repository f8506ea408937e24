"""The scrape of a job that has just started: what it must show before anything has happened."""

import subprocess
import sys

from streampulse.job.rows import REASONS
from streampulse.oracle.decide import DEAD_LETTER_REASONS

FRESH = """
from prometheus_client import generate_latest
import streampulse.job.metrics
print(generate_latest().decode())
"""


def test_every_reason_is_there_from_the_start_so_that_a_first_burst_is_an_increase() -> None:
    # A process of its own: other tests of this one may have counted already.
    scrape = subprocess.run([sys.executable, "-c", FRESH], check=True, capture_output=True, text=True).stdout
    for reason in REASONS:
        assert f'\nstreampulse_job_dead_letters_total{{reason="{reason}"}} 0.0\n' in scrape


def test_the_reasons_are_those_that_the_oracle_knows() -> None:
    """It decides by code of its own, so that one mistake is not made twice."""
    assert set(REASONS) == DEAD_LETTER_REASONS
