"""``inv smoke``: a few events go in, exactly their numbers come out, and all of it is removed again."""

from streampulse.core.errors import OperatorError
from streampulse.host import SMOKE_SECONDS
from streampulse_ops.command import last_words
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command

#: Prometheus reads each target every 10 s.
TARGETS_SECONDS = 30


def smoke(session: Session, seconds: int = 0) -> None:
    """Send a few events and expect exactly their numbers everywhere.

    :param seconds: the longest wait for the numbers; 0 for SMOKE_SECONDS. ``timeout_factor`` multiplies it.
    :raises OperatorError: an event did not pass; the text names the hop.
    """
    with session.screen.step("smoke") as step:
        step.note("sending a few events and waiting for their numbers")
        words = ["smoke", "--timeout", _patience(session, seconds or SMOKE_SECONDS)]
        code, output, errors = command.on_master(session, words)
        if code != 0:
            reason = command.said(code, output, errors)
            raise OperatorError(f"smoke failed: {reason}. Look: inv doctor --env {session.name}")
        step.done(last_words(output, code) if output.strip() else "passed")


def targets(session: Session) -> None:
    """Check that Prometheus reads every target.

    :raises OperatorError: a target is not read, or there is none; the text names it.
    """
    host = session.environment.require_group("monitoring")[0]
    again = f"inv up --full --env {session.name}"
    with session.screen.step("targets") as step:
        step.note("asking Prometheus for its targets")
        words = ["wait", "targets", "--timeout", _patience(session, TARGETS_SECONDS)]
        code, output, errors = command.run(session, host, words, full=True)
        reason = command.said(code, output, errors if code else "").removeprefix("targets: ")
        if code != 0:
            raise OperatorError(f"{reason}; when it is fixed: {again}")
        step.done(reason)


def _patience(session: Session, seconds: int) -> str:
    factor = session.environment.variables.get("timeout_factor")
    return str(seconds * (factor if isinstance(factor, int) else 1))  # `up` refuses what is no number
