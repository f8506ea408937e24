"""``inv verify``: every number is computed again from the raw topic, on the job's first host."""

from streampulse.core.errors import OperatorError
from streampulse_ops.command import last_words
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command


def verify(session: Session) -> None:
    """Compare every number with its recomputation and print the result.

    :raises OperatorError: numbers differ, or could not be compared.
    """
    code, _, errors = command.on_master(session, ["verify"], live=True)
    if code != 0:
        why = f" ({last_words(errors, code)})" if errors.strip() else ""
        raise OperatorError(f"the numbers were not confirmed{why}: see above, and inv doctor --env {session.name}")
