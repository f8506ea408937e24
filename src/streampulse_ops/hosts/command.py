"""The ``streampulse`` command of the hosts, run over SSH."""

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.command import last_words
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.ssh import Remote

COMMAND = "/usr/local/bin/streampulse"
#: Exit code of the command for wrong usage.
WRONG_USAGE = 2
#: Exit code of a shell that does not find the command.
NOT_FOUND = 127


def run(
    session: Session,
    host: Host,
    words: Sequence[str],
    *,
    full: bool = False,
    remote: Remote | None = None,
    timeout: float | None = None,
    live: bool = False,
) -> tuple[int, str, str]:
    """Run the command on a host and return its exit code, its output and its errors.

    :param full: whether ``inv up --full`` installs what is asked, and not ``inv up``.
    :param remote: an open connection to the host; without one a connection is made for this call.
    :param timeout: seconds after which the call is given up.
    :param live: show the output as it comes.
    :raises OperatorError: the host is down or cannot be reached, or has no release or an older one.
    """
    if session.ours:
        session.require_running(host)
    with nullcontext(remote) if remote else Remote(session.environment, host) as connection:
        code, output, errors = connection.run([COMMAND, *words], timeout=timeout, live=live)
    again = f"inv up{' --full' * full} --env {session.name}"
    if code == NOT_FOUND:
        raise OperatorError(f"streampulse is not installed on {host.name}: {again}")
    if code == WRONG_USAGE and "invalid choice" in errors:
        raise OperatorError(f"{host.name} has an older release: {again}")
    return code, output, errors


def on_master(session: Session, words: Sequence[str], *, live: bool = False) -> tuple[int, str, str]:
    """Run the command on the job's first host, which has the settings of Kafka, of PostgreSQL and of the job.

    :raises OperatorError: as :func:`run`, or the inventory has no such host.
    """
    return run(session, session.environment.require_group("job")[0], words, live=live)


def shown(session: Session, words: Sequence[str], *, live: bool = False) -> None:
    """Run the command on the job's first host and show its output.

    :param live: show the output as it comes; without it, once the command has ended.
    :raises UsageError: the command line is wrong.
    :raises OperatorError: as :func:`on_master`, or the command failed; the text is its own.
    """
    code, output, errors = on_master(session, words, live=live)
    if not live:
        # Printed byte for byte: the host has already removed what could harm a terminal.
        sys.stdout.write(output)
        sys.stdout.flush()
    if code != 0:
        # argparse's complaints begin with the name that the program has on the host.
        text = re.sub(r"^streampulse \S+: error: ", "", said(code, "", errors))
        text = with_environment(text, session.name) if not live or not errors.strip() else "not done, see above"
        raise UsageError(f"{text}. See: inv --help {words[0]}") if code == WRONG_USAGE else OperatorError(text)


def said(code: int, output: str, errors: str) -> str:
    """Return the last words of a command that failed, without its name in front."""
    return last_words(errors if errors.strip() else output, code).removeprefix("streampulse: ")


def with_environment(fix: str, name: str) -> str:
    """Return a fix with the environment named in each of its tasks, because a host does not know the name."""
    return re.sub(r"\binv [^;]*[^; ]", lambda found: f"{found[0]} --env {name}", fix)
