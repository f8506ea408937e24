"""``inv top``: what ``inv status --full`` shows, refreshed in place."""

import time
from contextlib import ExitStack
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.cli.ending import Terminated
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import monitoring
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.verbs import report as reports
from streampulse_ops.verbs import status

LONGEST_SECONDS = 3600


def show(session: Session, every: int, once: bool) -> None:
    """Show everything until Ctrl-C; once with ``once`` or without a terminal.

    :param every: seconds from the end of one look to the next.
    :raises UsageError: ``every`` is out of range.
    """
    if not 1 <= every <= LONGEST_SECONDS:
        raise UsageError(f"every {every} seconds cannot be done: write a number from 1 to {LONGEST_SECONDS}")
    console = session.screen.console
    if once or not console.is_terminal:
        console.print(look(session, None))
        return
    opening = Text(f"{session.headline()} · looking ...")
    with ExitStack() as kept, Live(opening, console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        remote = _connection(session, kept)
        try:
            while True:
                live.update(look(session, remote), refresh=True)
                time.sleep(every)
        except Terminated:
            raise
        except KeyboardInterrupt:
            return  # the usual way to end it


def look(session: Session, remote: Remote | None) -> RenderableType:
    """Return the state of everything now; an error stands in the place of what could not be read.

    :param remote: an open connection to the monitoring host.
    """
    parts: list[RenderableType] = [Text(f"{session.headline()} · {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"), Text()]
    try:
        report = monitoring.ask(session, remote) if session.environment.in_group("monitoring") else None
        if report is None:
            parts.append(Text(f"no monitoring: inv up --full --env {session.name}"))
        else:
            parts.append(reports.shown(report, session.name))
    except OperatorError as error:
        parts.append(Text(str(error), style="red"))
    parts += [Text(), status.table(status.collect(session))]
    return Group(*parts)


def _connection(session: Session, kept: ExitStack) -> Remote | None:
    """Return a connection to the monitoring host, None where there is no such host or it is down."""
    try:
        host = session.environment.require_group("monitoring")[0]
        session.require_running(host)
    except OperatorError:
        return None
    return kept.enter_context(Remote(session.environment, host))
