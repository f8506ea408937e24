"""``inv peek``: the newest records of a topic, read on the job's first host."""

import sys

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command


def peek(session: Session, topic: str, count: int) -> None:
    """Print the newest records of a topic.

    :param topic: empty for the topic of events.
    :raises UsageError: the number of records or the topic's name is not allowed.
    :raises OperatorError: the records could not be read.
    """
    code, output, errors = command.on_master(session, ["peek", "-n", str(count), *([topic] if topic else [])])
    if code != 0:
        # argparse's complaints begin with the name that the program has on the host.
        reason = command.said(code, output, errors).removeprefix("streampulse peek: error: ")
        if code == command.WRONG_USAGE:
            raise UsageError(f"{reason}. See: inv --help peek")
        raise OperatorError(f"{reason}. See: inv --help peek, inv doctor --env {session.name}")
    # Printed byte for byte: the host has already removed what could harm a terminal.
    sys.stdout.write(output)
    sys.stdout.flush()
