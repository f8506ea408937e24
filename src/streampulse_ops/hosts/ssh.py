"""Logging in to hosts over SSH, with host keys checked."""

import json
import logging
import os
import shlex
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from fabric import Config, Connection
from invoke.exceptions import CommandTimedOut
from paramiko import MissingHostKeyPolicy, PKey, RejectPolicy, SSHClient
from paramiko.ssh_exception import SSHException

from streampulse.core.errors import OperatorError
from streampulse_ops.environments import inventory
from streampulse_ops.environments.environment import Environment, Host, check_port
from streampulse_ops.hosts.reach import CONNECT_SECONDS, NoAnswerError, Reached, effective, reach

#: Types of host keys that paramiko can verify.
KEY_TYPES = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
# paramiko raises what it logs; its log would print a traceback before the one line of the task.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Login:
    """How to log in to a host."""

    host: str
    address: str
    #: None: 22, or what ~/.ssh/config says.
    port: int | None
    user: str | None
    key: str | None
    known_hosts: str | None
    #: The inventory's ansible_ssh_args, ansible_ssh_common_args and ansible_ssh_extra_args.
    options: tuple[str, ...] = ()

    def command(self, *options: str) -> list[str]:
        """Return the ssh command that logs in."""
        words = ["ssh", *options, "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
        if self.port:
            words += ["-p", str(self.port)]
        if self.key:
            words += ["-i", self.key, "-o", "IdentitiesOnly=yes"]
        if self.known_hosts:
            words += ["-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
        return [*words, *self.options, f"{self.user}@{self.address}" if self.user else self.address]

    def as_root(self, words: list[str], *, typed: bool = False) -> list[str]:
        """Return the words of a command as this account runs it with root's rights.

        :param typed: whether sudo reads a password, from the first line of the command's input.
        """
        return words if self.user == "root" else ["sudo", *(["-S", "-k", "-p", ""] if typed else ["-n"]), *words]


def login(environment: Environment, host: Host) -> Login:
    """Return how to log in to a host, from what its provider wrote and from the inventory.

    :raises OperatorError: the key is somebody else's.
    """
    file = environment.state / "inventory.json"
    known: dict[str, Any] = {}
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))["all"]["hosts"].get(host.name, {})
    merged = {**inventory.connection(environment, host), **known}
    check_port(merged, f"{host.name}'s", environment.inventory)
    key = merged.get("ansible_ssh_private_key_file")
    own = environment.state / "id_ed25519"
    if str(key) == str(own) and own.exists() and not os.access(own, os.R_OK):
        raise OperatorError(
            f"the environment {environment.name} belongs to {own.owner()}, who made it ({environment.state}): run the "
            f"task as {own.owner()}"
        )
    known_hosts = environment.state / "known_hosts"
    options = [str(merged.get(f"ansible_ssh_{which}args") or "") for which in ("", "common_", "extra_")]
    return Login(
        host.name,
        str(merged.get("ansible_host", host.name)),
        int(merged["ansible_port"]) if "ansible_port" in merged else None,
        merged.get("ansible_user"),
        str(Path(str(key)).expanduser()) if key else None,
        str(known_hosts) if known_hosts.exists() else None,
        () if environment.ours else tuple(word for given in options for word in shlex.split(given)),
    )


def reached(environment: Environment, host: Host) -> Reached:
    """Reach an existing host with OpenSSH.

    :raises NoAnswerError: no SSH server answers.
    :raises OperatorError: the login or sudo is refused.
    """
    return reach(environment, host.name, login(environment, host).command())


def address(environment: Environment, host: Host) -> str:
    """Return the address at which this machine reaches a host; OpenSSH knows it where ansible_host is an alias."""
    found = login(environment, host)
    return found.address if environment.ours else effective(found.command())["hostname"]


class VerifiedKey(MissingHostKeyPolicy):  # type: ignore[misc] # paramiko has no types
    """Accept only the host key that OpenSSH has verified."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def missing_host_key(self, _client: SSHClient, hostname: str, key: PKey) -> None:
        """Compare the key.

        :raises SSHException: it is another key.
        """
        if key.fingerprint != self.fingerprint:
            raise SSHException(f"{hostname} shows another host key than a moment ago")


class Remote:
    """A connection to one host, kept while the body of a `with` runs."""

    def __init__(self, environment: Environment, host: Host) -> None:
        self.environment = environment
        self.host = host
        self.login = login(environment, host)
        self._password = ""
        self._connection = self._make() if environment.ours else self._follow()

    def _follow(self) -> Connection:
        """Return a connection that takes the way that OpenSSH took."""
        way = reached(self.environment, self.host)
        self._password = way.sudo_password
        family = "rsa-" if way.key_type == "ssh-rsa" else way.key_type
        arguments: dict[str, Any] = {
            "timeout": CONNECT_SECONDS,
            "banner_timeout": CONNECT_SECONDS,
            "key_filename": list(way.identities),
            # A host has keys of several types; ask for the type that OpenSSH has verified.
            "disabled_algorithms": {"keys": [kind for kind in KEY_TYPES if not kind.startswith(family)]},
        }
        config = Config(overrides={"load_ssh_configs": False})
        connection = Connection(
            way.hostname,
            user=way.user,
            port=way.port,
            config=config,
            connect_kwargs=arguments,
            gateway=way.proxy or None,
        )
        connection.client.set_missing_host_key_policy(VerifiedKey(way.fingerprint))
        return connection

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

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    def run(self, arguments: list[str], *, timeout: float | None = None, live: bool = False) -> tuple[int, str, str]:
        """Run a command as root and return its exit code, its output and its errors.

        :param timeout: seconds after which it is given up.
        :param live: show the output as it comes.
        :raises NoAnswerError: the host cannot be reached.
        :raises OperatorError: the command did not end in time.
        """
        words = self.login.as_root(arguments, typed=bool(self._password))
        typed = StringIO(f"{self._password}\n") if self._password else False
        try:
            done = self._connection.run(shlex.join(words), hide=not live, warn=True, timeout=timeout, in_stream=typed)
        except CommandTimedOut:
            raise OperatorError(
                f"`{shlex.join(words)}` did not end within {timeout:g} s on {self.host.name}: is the host overloaded? "
                f"inv status --env {self.environment.name}"
            ) from None
        except (OSError, SSHException, EOFError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            name = self.environment.name
            raise NoAnswerError(
                f"{self.host.name} ({self.login.address}) cannot be reached over SSH: {reason}. "
                f"Is it up? inv status --env {name}; start it: inv up --env {name}"
            ) from None
        return int(done.exited), str(done.stdout), str(done.stderr)
