"""``inv exclude``: an operator judges one record, on the job's first host."""

from streampulse_ops.cli.ownership import author
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command


def run(session: Session, partition: str, offset: str | None, reason: str, dry_run: bool) -> str | None:
    """Exclude a record or list the exclusions, and return the closing words.

    :raises UsageError: the command line is wrong.
    :raises OperatorError: the record cannot be excluded.
    """
    words = ["exclude", partition, *([offset] if offset else []), *(["--reason", reason] if reason else [])]
    if partition != "list":
        words += ["--by", author(), *(["--dry-run"] if dry_run else [])]
    command.shown(session, words)
    return "nothing was changed" if dry_run else None
