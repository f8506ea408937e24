"""Logging in to hosts over SSH, with host keys checked."""

from __future__ import annotations

import json
import logging
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fabric import Config, Connection
from invoke.exceptions import CommandTimedOut
from paramiko import RejectPolicy
from paramiko.ssh_exception import SSHException

from streampulse.core.errors import OperatorError
from streampulse_ops.environments.environment import Environment, Host

CONNECT_SECONDS = 10
# paramiko raises what it logs; its log would print a traceback before the one line of the task.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Login:
    """How to log in to a host."""

    host: str
    address: str
    port: int
    user: str | None
    key: str | None
    known_hosts: str | None

    def command(self, *options: str) -> list[str]:
        """Return the ssh command that logs in."""
        words = ["ssh", *options, "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-p", str(self.port)]
        if self.key:
            words += ["-i", self.key, "-o", "IdentitiesOnly=yes"]
        if self.known_hosts:
            words += ["-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
        return [*words, f"{self.user}@{self.address}" if self.user else self.address]

    def as_root(self, words: list[str]) -> list[str]:
        """Return the words of a command as this account runs it with root's rights."""
        return words if self.user == "root" else ["sudo", "-n", *words]


def login(environment: Environment, host: Host) -> Login:
    """Return how to log in to a host, from what its provider wrote and from the inventory.

    :raises OperatorError: the key is somebody else's.
    """
    file = environment.state / "inventory.json"
    known: dict[str, Any] = {}
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))["all"]["hosts"].get(host.name, {})
    merged = {**environment.variables, **host.variables, **known}
    key = merged.get("ansible_ssh_private_key_file")
    own = environment.state / "id_ed25519"
    if str(key) == str(own) and own.exists() and not os.access(own, os.R_OK):
        raise OperatorError(
            f"the environment {environment.name} belongs to {own.owner()}, who made it ({environment.state}): run the "
            f"task as {own.owner()}"
        )
    known_hosts = environment.state / "known_hosts"
    return Login(
        host.name,
        str(merged.get("ansible_host", host.name)),
        int(merged.get("ansible_port", 22)),
        merged.get("ansible_user"),
        str(Path(str(key)).expanduser()) if key else None,
        str(known_hosts) if known_hosts.exists() else None,
    )


class Remote:
    """A connection to one host, kept while the body of a `with` runs."""

    def __init__(self, environment: Environment, host: Host) -> None:
        self.environment = environment
        self.host = host
        self.login = login(environment, host)
        self._connection = self._make()

    def _make(self) -> Connection:
        arguments: dict[str, Any] = {"timeout": CONNECT_SECONDS, "banner_timeout": CONNECT_SECONDS}
        if self.login.key:
            arguments |= {"key_filename": self.login.key, "look_for_keys": False, "allow_agent": False}
        config = Config(overrides={"load_ssh_configs": not self.login.key})
        connection = Connection(
            self.login.address, user=self.login.user, port=self.login.port, config=config, connect_kwargs=arguments
        )
        connection.client.set_missing_host_key_policy(RejectPolicy())
        if self.login.known_hosts:
            connection.client.load_host_keys(self.login.known_hosts)
        else:
            connection.client.load_system_host_keys()
        return connection

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def run(self, arguments: list[str], *, timeout: float | None = None, live: bool = False) -> tuple[int, str, str]:
        """Run a command as root and return its exit code, its output and its errors.

        :param timeout: seconds after which it is given up.
        :param live: show the output as it comes.
        :raises OperatorError: the host cannot be reached, or the command did not end in time.
        """
        words = self.login.as_root(arguments)
        try:
            done = self._connection.run(shlex.join(words), hide=not live, warn=True, timeout=timeout, in_stream=False)
        except CommandTimedOut:
            raise OperatorError(
                f"`{shlex.join(words)}` did not end within {timeout:g} s on {self.host.name}: is the host overloaded? "
                f"inv status --env {self.environment.name}"
            ) from None
        except (OSError, SSHException, EOFError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            name = self.environment.name
            raise OperatorError(
                f"{self.host.name} ({self.login.address}) cannot be reached over SSH: {reason}. "
                f"Is it up? inv status --env {name}; start it: inv up --env {name}"
            ) from None
        return int(done.exited), str(done.stdout), str(done.stderr)
