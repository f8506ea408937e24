"""``inv dlq``: dead letters, counted, shown and sent again on the job's first host."""

from collections.abc import Sequence

from streampulse_ops.cli.ownership import author
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command


def run(session: Session, action: str, where: str, edits: Sequence[str], count: int, dry_run: bool) -> str | None:
    """Do what is asked with the dead letters that meet the conditions, and return the closing words.

    :param where: the conditions as they were typed; :param edits: fields to set, as ``FIELD=VALUE``.
    :param count: how many letters are shown.
    :raises UsageError: the command line is wrong.
    :raises OperatorError: it could not be done, or a replay came to something else than was predicted.
    """
    words = ["dlq", action, "-n", str(count), *(["--where", where] if where else [])]
    words += [word for each in edits for word in ("--set", each)]
    words += ["--by", author()] if action == "replay" else []
    command.shown(session, [*words, *(["--dry-run"] if dry_run else [])], live=action == "replay")
    return "nothing was sent" if dry_run else None
