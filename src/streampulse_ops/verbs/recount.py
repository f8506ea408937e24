"""``inv recount``: the history is counted again on the job's first host, and swapped in."""

from streampulse.core.errors import OperatorError
from streampulse.recount import NOTHING
from streampulse_ops.cli.console import confirm
from streampulse_ops.command import last_words
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.hosts import command


def recount(session: Session, dry_run: bool, yes: bool) -> str:
    """Count the history again, show what would change, ask, count and swap, and return the closing words.

    :param dry_run: stop when it is shown.
    :param yes: do not ask; the history is then counted once.
    :raises OperatorError: it could not be counted or swapped, or the answer was no. Nothing was changed.
    """
    session.screen.line(session.headline())
    typed = session.environment.typed
    if dry_run or typed or not yes:
        output = _run(session, ["recount", "--dry-run"])
        if dry_run or NOTHING in output:
            return "nothing was changed"
    again = f"inv recount --yes{session.flag}"
    confirm(f"This replaces the numbers and the job's state of {session.name} by those.", yes, again, typed)
    with changing(session, "inv recount"):
        output = _run(session, ["recount"])
    return "nothing was changed" if NOTHING in output else f"recounted; check: inv verify{session.flag}"


def _run(session: Session, words: list[str]) -> str:
    code, output, errors = command.on_master(session, words, live=True)
    if code != 0:
        raise OperatorError(f"no recount was swapped in ({last_words(errors, code)}). Look: inv doctor{session.flag}")
    return output
