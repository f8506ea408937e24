"""Reach an existing host as OpenSSH does, and learn what a second SSH library needs for the same way.

OpenSSH knows all of ``~/.ssh/config``, jump hosts, agents, every known_hosts file and host certificates. It logs in
first and verifies the host's key. Fabric then accepts only the key that OpenSSH has verified.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops.command import CommandError, ended, last_words, run
from streampulse_ops.environments import inventory, secrets
from streampulse_ops.environments.environment import Environment

#: Seconds for the connection, and for the login with its jump hosts.
CONNECT_SECONDS = 10
LOGIN_SECONDS = 60.0
#: Exit code of ssh for its own failures.
SSH_FAILED = 255
HOST_KEY = re.compile(r"Server host (?:key|certificate): (\S+) (SHA256:[^\s,]+)")


class NoAnswerError(OperatorError):
    """No SSH server answers at the host's address."""


class RefusedError(OperatorError):
    """A host that answers cannot be used: its key, the login or sudo. ``state`` says which, in few words."""

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state


@dataclass(frozen=True)
class Reached:
    """How OpenSSH reached a host, and the password that sudo asks for there."""

    hostname: str
    port: int
    user: str
    #: Type of the verified host key, and its SHA-256 fingerprint.
    key_type: str
    fingerprint: str
    #: Files with private keys that OpenSSH would offer.
    identities: tuple[str, ...]
    #: Command whose standard input and output lead to the host; empty for a direct connection.
    proxy: str
    #: Empty where sudo asks for none.
    sudo_password: str


_results: dict[tuple[str, ...], Reached | OperatorError] = {}


def reach(environment: Environment, name: str, command: Sequence[str]) -> Reached:
    """Log in to a host with OpenSSH, and check that the account may become root.

    The result is kept while this process runs.

    :param command: the ssh command that logs in.
    :raises NoAnswerError: no SSH server answers.
    :raises OperatorError: the login or sudo is refused; the text names the cause and the fix.
    """
    asked = (str(environment.inventory), name, *command)
    if asked not in _results:
        try:
            _results[asked] = _reach(environment, name, command)
        except OperatorError as error:
            _results[asked] = error
    result = _results[asked]
    if isinstance(result, OperatorError):
        raise result
    return result


def _reach(environment: Environment, name: str, command: Sequence[str]) -> Reached:
    settings = effective(command)
    # A new connection: a shared one does not print the host's key.
    options = ["-v", "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    code, _, errors = _ssh(command, options, "sudo -n true" if settings["user"] != "root" else "true")
    if code == SSH_FAILED:
        raise explain(environment, name, settings, errors)
    key = HOST_KEY.findall(errors)[-1]
    password = "" if code == 0 else _sudo_password(environment, name, settings["user"], command, errors)
    jump, proxy = settings.get("proxyjump", "none"), settings.get("proxycommand", "none")
    if jump != "none":
        target = f"[{settings['hostname']}]:{settings['port']}"
        proxy = shlex.join(["ssh", "-o", "BatchMode=yes", "-W", target, *jump_words(jump)])
    elif proxy != "none":
        for mark, value in (("%h", "hostname"), ("%p", "port"), ("%r", "user")):
            proxy = proxy.replace(mark, settings[value])
    files = (Path(file).expanduser() for file in settings.get("identityfile", "").split("\n") if file)
    return Reached(
        settings["hostname"],
        int(settings["port"]),
        settings["user"],
        re.sub(r"-cert-v01@openssh\.com$", "", key[0]),
        key[1],
        tuple(str(file) for file in files if file.exists()),
        "" if proxy == "none" else proxy,
        password,
    )


def jump_words(jumps: str) -> list[str]:
    """Return the words that log in to the last of some jump hosts, through the others."""
    *others, last = jumps.split(",")
    found = re.fullmatch(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:]+)(?::(?P<port>\d+))?", last)
    if not found:
        raise OperatorError(f"ProxyJump {jumps} is not [user@]host[:port]: correct it in ~/.ssh/config")
    words = ["-J", ",".join(others)] if others else []
    words += ["-l", found["user"]] if found["user"] else []
    words += ["-p", found["port"]] if found["port"] else []
    return [*words, found["host"].strip("[]")]


def effective(command: Sequence[str]) -> dict[str, str]:
    """Return OpenSSH's effective options; the values of an option given several times are lines."""
    found: dict[str, str] = {}
    for line in run([command[0], "-G", *command[1:]]).splitlines():
        name, _, value = line.partition(" ")
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def _ssh(command: Sequence[str], options: Sequence[str], words: str, typed: str = "") -> tuple[int, str, str]:
    """Run a command on the host and return its exit code, its output and its errors."""
    try:
        done = ended([command[0], *options, *command[1:], words], timeout=LOGIN_SECONDS, stdin=typed)
    except CommandError:
        return SSH_FAILED, "", f"Connection timed out after {LOGIN_SECONDS:g} s"
    return done.returncode, done.stdout, done.stderr


def explain(environment: Environment, name: str, settings: dict[str, str], errors: str) -> OperatorError:
    """Return the error of a login that failed, from ssh's own messages."""
    said = [line for line in errors.splitlines() if line.strip() and not line.startswith(("debug", "OpenSSH_"))]
    text = "\n".join(said)
    address = settings["hostname"]
    what = f"{name} ({address})" if address != name else name
    port = "" if settings["port"] == "22" else f"-p {settings['port']} "
    look = f"ssh {port}{settings['user']}@{address}"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        known = address if not port else f"'[{address}]:{settings['port']}'"
        return RefusedError(
            "host key has changed",
            f"{what} has another SSH host key than the known one: the host was made again, or somebody is in between. "
            f"If it was made again: ssh-keygen -R {known}, then {look}",
        )
    if "Host key verification failed" in text or "host key is known for" in text:
        return RefusedError(
            "host key is unknown", f"the SSH host key of {what} is not known here: compare it and accept it with {look}"
        )
    if "Permission denied" in text or "Too many authentication failures" in text:
        return RefusedError(
            "login is refused",
            f"{what} refuses to log in {settings['user']}: set ansible_user and ansible_ssh_private_key_file in "
            f"{environment.inventory}, or add your key on the host; try {look}",
        )
    reason = last_words(text, SSH_FAILED)
    return NoAnswerError(
        f"{what} does not answer on SSH ({reason}): start the host, or fix ansible_host in {environment.inventory}"
    )


def _sudo_password(environment: Environment, name: str, user: str, command: Sequence[str], errors: str) -> str:
    """Return the inventory's or the vault's password for sudo, after a try.

    :raises OperatorError: there is none, or sudo refuses it.
    """
    if "not found" in errors:
        raise RefusedError(
            "sudo is refused", f"{name} has no sudo, and {user} is not root: apt install sudo there, as root"
        )
    password = _become_password(environment, name)
    vault = environment.folder / "vault.yml"
    if not password:
        raise RefusedError(
            "sudo is refused",
            f"sudo on {name} asks {user} for a password: add ansible_become_password to {vault} "
            f"({inventory.program('ansible-vault')} edit {vault}), or allow {user} NOPASSWD in /etc/sudoers.d",
        )
    code, _, said = _ssh(command, ["-o", "BatchMode=yes"], "sudo -S -p '' -k true", f"{password}\n")
    if code != 0:
        raise RefusedError(
            "sudo is refused",
            f"sudo on {name} refuses {user} with the given ansible_become_password ({last_words(said, code)}): correct "
            f"it ({inventory.program('ansible-vault')} edit {vault})",
        )
    return password


def _become_password(environment: Environment, name: str) -> str:
    """Return a host's ansible_become_password as Ansible evaluates it; empty without one."""
    try:
        file = secrets.file_for(environment)
    except OperatorError as error:
        raise RefusedError("vault does not open", str(error)) from None
    wanted = "ansible_become_password | default(ansible_become_pass) | default('')"
    return str(inventory.evaluated(environment, name, wanted, "-e", f"@{file}")[name])
