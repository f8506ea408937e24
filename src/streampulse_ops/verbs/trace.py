"""``inv trace``: the path of an event, found on the job's first host."""

from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command


def run(session: Session, event_id: str, stream: str, since: str) -> None:
    """Print what happened to an event.

    :raises UsageError: the id, or the instant, has another form.
    :raises OperatorError: there is no trace of it, or the host could not look.
    """
    words = ["trace", event_id, *(["--stream", stream] if stream else []), *(["--since", since] if since else [])]
    command.shown(session, words, live=True)
