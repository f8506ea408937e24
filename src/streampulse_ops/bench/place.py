"""The benchmark's environment: created and removed by the run, never one that holds data."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse_ops import services
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.verbs.down import down
from streampulse_ops.verbs.reset import reset


@contextmanager
def own(session: Session, keep: bool) -> Iterator[None]:
    """Provide the environment to the body, which brings it up, and remove it afterwards.

    :param keep: keep it, with its data.
    :raises OperatorError: it exists already, or it is not for the benchmark.
    """
    environment = session.environment
    if not environment.ours:
        raise OperatorError(
            f"{session.name} is made of hosts that exist already, and the benchmark fills, kills and removes what it "
            f"works on: give it an environment of its own, inv bench --env bench"
        )
    if environment.variables.get("benchmark") is not True:
        raise OperatorError(
            f"{session.name} is somebody's environment, which the benchmark would fill, kill and remove: "
            f"inv bench --env bench, or write `benchmark: true` into the variables of {environment.inventory}"
        )
    if environment.state.exists():
        raise OperatorError(
            f"{session.name} is there already and may hold data, which the benchmark would spoil: "
            f"inv down --wipe --env {session.name}"
        )
    try:
        yield
    finally:
        if keep:
            session.screen.line(
                f"kept: inv status --env {session.name}; remove it: inv down --wipe --env {session.name}"
            )
        else:
            down(session, full=False, wipe=True)


class Place:
    """The host of the environment, which runs every service.

    :raises OperatorError: it has more than one host.
    """

    def __init__(self, session: Session) -> None:
        if len(session.environment.hosts) != 1:
            raise OperatorError(
                f"{session.name} has several hosts, and times are compared by one clock: measure on one host"
            )
        self.session = session
        self.host = session.environment.hosts[0]
        #: Whether a measurement has sent events, which move the event clocks to the present.
        self.used = False

    def unit(self, service: str) -> str:
        """Return the unit of a service."""
        return services.named(service).unit

    def command(self, words: Sequence[str]) -> str:
        """Run the ``streampulse`` command on the host and return its output.

        :raises OperatorError: it failed; the text is the command's.
        """
        return self.run([command.COMMAND, *words])

    def verify(self) -> None:
        """Compare every number with its recomputation, as a step on the screen."""
        with self.session.screen.step("verify") as step:
            step.note("computing every number again")
            said = self.command(["verify"]).splitlines()
            step.done(said[-1].strip() if said else "")

    def measure(self, words: Sequence[str]) -> Any:
        """Run a measurement on the host and return its result.

        :raises OperatorError: it failed; the text is the command's.
        """
        self.used = True
        return json.loads(self.command(["measure", *words]))

    @contextmanager
    def measuring(self, unit: str, words: Sequence[str]) -> Iterator[None]:
        """Run a companion of a measurement on the host during the body.

        :param unit: the name of its transient unit.
        :raises OperatorError: it ended before the body; the text is the command's.
        """
        self.used = True
        self.run(["systemd-run", "--quiet", "--collect", f"--unit={unit}", command.COMMAND, "measure", *words])
        try:
            yield
            if not self._active(unit):
                said = self.run(["journalctl", f"--unit={unit}", "--output=cat", "--lines=20"]).splitlines()
                own = [line.removeprefix("streampulse: ") for line in said if line.startswith("streampulse: ")]
                raise OperatorError(f"{self.host.name}: {own[-1] if own else f'{unit} has ended'}")
        finally:
            if self._active(unit):
                self.run(["systemctl", "stop", unit])

    def _active(self, unit: str) -> bool:
        return self.run(["systemctl", "show", "--property=ActiveState", "--value", unit]).strip() == "active"

    def renew(self) -> None:
        """Reset topics, tables and checkpoints, unless they are in their initial state."""
        if self.used:
            reset(self.session, full=False)
            self.used = False

    def run(self, words: Sequence[str]) -> str:
        """Run a command on the host as root and return its output.

        :raises OperatorError: it failed; the text is its last output line.
        """
        with Remote(self.session.environment, self.host) as remote:
            code, output, errors = remote.run(list(words))
        if code != 0:
            raise OperatorError(f"{self.host.name}: {command.said(code, output, errors)}")
        return output

    def stop(self, service: str) -> None:
        """Stop a service and wait until it has ended."""
        self.run(["systemctl", "stop", self.unit(service)])

    def start(self, service: str) -> None:
        """Start a service and wait until it is ready."""
        self.run(["systemctl", "start", self.unit(service)])
