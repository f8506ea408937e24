"""The state of everything at a glance, again and again in the same place."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.cli.ending import Terminated
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.remote import Remote
from streampulse_ops.verbs import status, watching

DEFAULT_SECONDS = 5
LONGEST_SECONDS = 3600


def show(session: Session, every: int, once: bool) -> None:
    """Show everything until Ctrl-C; once where it is asked for, or where nobody sits at a terminal.

    :param every: seconds from the end of one look to the next.
    :raises UsageError: that is no such number.
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
            return  # the ordinary end of it


def look(session: Session, remote: Remote | None) -> RenderableType:
    """Return the state of everything now. What cannot be found out is said in its place.

    :param remote: a connection to the watching host that is kept, where there is one.
    """
    parts: list[RenderableType] = [Text(f"{session.headline()} · {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"), Text()]
    try:
        report = watching.ask(session, remote) if session.environment.in_group("monitoring") else None
        if report is None:
            parts.append(Text(f"no monitoring: inv up --full --env {session.name}"))
        else:
            parts.append(watching.shown(report, session.name))
    except OperatorError as error:
        parts.append(Text(str(error), style="red"))
    parts += [Text(), status.table(status.collect(session))]
    return Group(*parts)


def _connection(session: Session, kept: ExitStack) -> Remote | None:
    """Return a connection to the watching host, None where there is no such host or it is down."""
    try:
        host = watching.watching_hosts(session.environment)[0]
        session.require_running(host)
    except OperatorError:
        return None
    return kept.enter_context(Remote(session.environment, host))
