"""Sessions on hosts that exist in a test only."""

from pathlib import Path
from typing import Any, Self

from streampulse_ops.cli.console import Screen
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.environments.session import Session
from streampulse_ops.machines.existing import Existing


def session(
    folder: Path, screen: Screen | None = None, *, running: bool | None = None, provider: str = "existing", **hosts: str
) -> Session:
    """Return a session in the environment ``demo``.

    :param running: what the provider says of each host; None: what it finds out.
    :param hosts: the groups of each host, by its name.
    """
    listed = tuple(Host(name, frozenset(groups.split())) for name, groups in hosts.items())
    environment = Environment("demo", folder, listed, {"provider": provider})
    own = Existing(environment)
    if running is not None:
        own.running = lambda host: running  # type: ignore[method-assign]  # noqa: ARG005
    return Session(environment, own, screen or Screen())


class FakeRemote:
    """Stands for Remote; a test's class has the method ``run``."""

    def __init__(self, _environment: Environment, host: Host) -> None:
        self.host = host

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None: ...

    def run(self, words: list[str], **more: Any) -> tuple[int, str, str]:
        raise NotImplementedError
