"""A session: the environment of a task, its provider, its lock, and the screen."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from streampulse.core.errors import OperatorError
from streampulse_ops import machines
from streampulse_ops.cli.console import Screen
from streampulse_ops.cli.ownership import give_to_invoker
from streampulse_ops.environments import environment as environments
from streampulse_ops.environments import host_lock, lock
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.machines import Provider, root


@dataclass(frozen=True)
class Session:
    """One task's view of one environment."""

    environment: Environment
    provider: Provider
    screen: Screen
    verbose: bool = False

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.environment.name

    @property
    def ours(self) -> bool:
        """Whether the project makes and removes the machines; False for hosts that exist already."""
        return self.environment.ours

    @property
    def flag(self) -> str:
        """The option that names the environment in advice to people; empty for the default one."""
        return "" if self.name == "local" else f" --env {self.name}"

    @property
    def never_made(self) -> bool:
        """Whether there are no machines to do anything to.

        Machines that the project makes have state on this machine. Existing hosts may have been set up from another
        control machine, so they count as made.
        """
        return self.ours and not self.environment.state.is_dir()

    def make_state(self) -> None:
        """Make the environment's folder on this machine, if it is missing."""
        state = self.environment.state
        if not state.is_dir():
            if root.needed(self.environment):
                root.run("prepare", self.environment)
            else:
                state.mkdir(parents=True)
                give_to_invoker(state)

    def headline(self) -> str:
        """Return the line about the environment that a task prints first."""
        count = len(self.environment.hosts)
        kind = "machine" if count == 1 else "machines"
        return f"{self.name} · {count} {kind} ({self.provider.describe()})"

    def require_running(self, host: Host) -> None:
        """Check that a host is up, as far as this side can tell.

        :raises OperatorError: it is not.
        """
        if self.provider.running(host):
            return
        if self.ours:
            raise OperatorError(f"{host.name} is not running: inv up --env {self.name}")
        self.provider.start(host)  # which only looks, and says why there is no answer

    def machines(self, verb: str) -> int:
        """Make and start (``up``), halt (``down``) or remove (``destroy``) the machines; return how many changed."""
        if root.needed(self.environment):
            return root.run(verb, self.environment)
        return len(machines.WORK[verb](self.environment, self.provider))


def open_session(name: str, screen: Screen, verbose: bool = False) -> Session:
    """Read an environment and return the view of it.

    :raises OperatorError: there is no such environment, or its inventory makes no sense.
    """
    environment = environments.load(name)

    def report(line: str) -> None:
        screen.now("machine", line)

    return Session(environment, machines.provider_for(environment, report), screen, verbose)


@contextmanager
def changing(session: Session, task: str, rebooting: str = "") -> Iterator[None]:
    """Hold the environment's lock while the body changes it.

    Machines that the project makes belong to this control machine, so they need its own lock only.

    :param rebooting: name of a host whose lock is left alone, since a reboot would end it.
    :raises OperatorError: somebody else holds it, or it was lost.
    """
    session.make_state()
    with lock.held(session.environment.state / "lock", task):
        found, silent = ({}, []) if session.ours else host_lock.commands(session.environment, task)
        found.pop(rebooting, None)
        if silent:
            session.screen.line(f"  not locked, since they do not answer: {', '.join(silent)}")
        with host_lock.held(session.name, found) if found else nullcontext():
            yield
