"""The metrics of a process that has just started: a test's own process may have counted already."""

import subprocess
import sys


def fresh(statements: str) -> str:
    """Return the scrape of a process that has run some statements."""
    program = f"{statements}\nfrom prometheus_client import generate_latest\nprint(generate_latest().decode())"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
