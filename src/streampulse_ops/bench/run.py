"""One run: the environment, the selected measurements, the report."""

import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from streampulse import __version__
from streampulse.core.errors import OperatorError
from streampulse_ops import command, paths
from streampulse_ops.bench import place as places
from streampulse_ops.bench.figures import Figure, missed
from streampulse_ops.bench.measures import MEASURES, up
from streampulse_ops.bench.options import NAMES, Options
from streampulse_ops.bench.report import Report, earlier_figures
from streampulse_ops.environments.session import Session

#: Load average per core above which the machine counts as busy.
BUSY: Final = 0.3


def run(session: Session, options: Options) -> str:
    """Measure, show and save the results, and return the closing line.

    :raises OperatorError: a figure misses its hard limit, or a measurement failed. The figures until then are saved.
    """
    earlier = None if options.compare is None else earlier_figures(options.compare)
    place = places.Place(session)
    about = describe(session.provider.describe(), options)
    if about["load_before"] > BUSY * (os.cpu_count() or 1):
        session.screen.line(
            f"  this machine is busy with something else (load {about['load_before']:.1f}): figures will suffer"
        )
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    try:
        with places.own(session, options.keep_machine):
            outcome = up.first(session)
            figures += outcome.figures
            details["up.first"] = outcome.details
            for name in NAMES:
                if name in options.only or not options.only:
                    outcome = MEASURES[name](place, options)
                    figures += outcome.figures
                    details[name] = outcome.details
    finally:
        files = _show(session, Report(about, figures, details, earlier), options)
    wrong = missed(figures)
    if wrong:
        raise OperatorError(f"{len(wrong)} MUST missed: {'; '.join(wrong)}")
    return f"{len(figures)} figures" + (f" · {', '.join(str(file) for file in files)}" if files else "")


def _show(session: Session, report: Report, options: Options) -> list[Path]:
    if not report.figures:
        return []
    session.screen.line("")
    session.screen.console.print(report.table())
    return report.write(options.out) if options.out is not None else []


def describe(machine: str, options: Options) -> dict[str, Any]:
    """Return the description of the run: time, commit, machine, options."""
    chosen = {name: value for name, value in asdict(options).items() if name not in ("out", "compare", "keep_machine")}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "commit": command.commit(paths.repository()),
        "machine": machine,
        "cores": os.cpu_count(),
        "memory_MiB": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024),
        "kernel": platform.release(),
        # The load of the previous minute comes from other programs.
        "load_before": os.getloadavg()[0],
        "options": {name: value or "all" if name == "only" else value for name, value in chosen.items()},
    }
