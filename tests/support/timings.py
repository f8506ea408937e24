"""Duration of each test, file and part of the suite, compared with the previous run.

``test-times.json`` in the state folder of the control machine has the seconds of each test, its fixtures included. Sums
of files and parts cover the tests that both runs have, so a run of a few tests compares those.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from streampulse_ops import paths

# A finding: twice the previous duration, and at least this many seconds longer.
FACTOR = 2.0
MINIMUM_SECONDS = 5.0


def slower(before: dict[str, float], now: dict[str, float]) -> list[str]:
    """Return the slowdowns to at least twice the previous duration: tests, then files and parts without such a test.

    :param before: seconds by test id.
    :param now: seconds by test id.
    """
    both = before.keys() & now.keys()
    old, new = _sums({name: before[name] for name in both}), _sums({name: now[name] for name in both})
    doubled = [name for name in new if new[name] >= FACTOR * old[name] and new[name] - old[name] >= MINIMUM_SECONDS]
    return [
        f"{name} took {new[name]:.0f} s, {old[name]:.0f} s in the run before"
        for name in sorted(doubled)
        if not any(other.startswith((f"{name}/", f"{name}::")) for other in doubled)
    ]


def _sums(times: dict[str, float]) -> Counter[str]:
    """Return the seconds of each part, file and test."""
    found: Counter[str] = Counter()
    for name, seconds in times.items():
        file = name.partition("::")[0]
        for key in ("/".join(file.split("/")[:2]), file, name):
            found[key] += seconds  # type: ignore[assignment] # Counter is typed for whole numbers
    return found


def _seconds(reporter: pytest.TerminalReporter) -> dict[str, float]:
    """Return the seconds of each test that passed."""
    passed = {report.nodeid for report in reporter.stats.get("passed", [])}
    times: Counter[str] = Counter()
    for report in (*reporter.stats.get("passed", []), *reporter.stats.get("", [])):
        if getattr(report, "nodeid", None) in passed:
            times[report.nodeid] += report.duration
    return dict(times)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report slowdowns, then store the durations for the next run."""
    now = _seconds(terminalreporter)
    file = paths.state_home() / "test-times.json"
    try:
        before: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        root = terminalreporter.config.rootpath
        kept = {name: seconds for name, seconds in before.items() if (root / name.partition("::")[0]).exists()}
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_suffix(".new")
        written.write_text(json.dumps(kept | now, indent=1, sort_keys=True))
        written.replace(file)
    except (OSError, ValueError) as error:
        terminalreporter.section("times")
        terminalreporter.line(f"times are neither kept nor compared: {error}. Remove the file: rm {file}")
        return
    found = slower(before, now)
    parts = {name: seconds for name, seconds in _sums(now).items() if name.count("/") == 1}
    if found or sum(parts.values()) > 60:
        terminalreporter.section("times")
        terminalreporter.line("seconds of tests: " + ", ".join(f"{Path(k).name} {v:.0f}" for k, v in parts.items()))
        for line in found:
            terminalreporter.line(line)
