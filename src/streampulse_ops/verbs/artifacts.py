"""``inv artifacts``: the software for the hosts, fetched and built here, checked against its pins."""

from streampulse_ops import artifacts, paths
from streampulse_ops.artifacts import jars
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments import environment as environments


def fetch(name: str, screen: Screen, verify: bool) -> str:
    """Fetch or build the artifacts of an environment and return the closing words.

    :raises OperatorError: an artifact cannot be fetched, or is not as pinned.
    """
    environment = environments.load(name)
    pythons, machine = artifacts.pythons_of(environment), artifacts.architecture_of(environment)
    prepared = artifacts.prepare(pythons, machine, lambda text: screen.now("artifacts", text))
    return prepared.summary() + (f", {artifacts.verify(prepared)} files hashed again" if verify else "")


def relock(screen: Screen) -> str:
    """Write artifacts.lock.yml from artifacts.yml and return the closing words."""
    count = jars.relock(paths.repository(), screen.line)
    return f"{count} jars pinned: look at git diff artifacts.lock.yml"
