"""The machines' command, for people, for Molecule, and for tasks that need root only here."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from streampulse.core.errors import OperatorError
from streampulse_ops import machines
from streampulse_ops.cli.ownership import explain, give_to_invoker, set_umask
from streampulse_ops.command import which
from streampulse_ops.environments import environment as environments
from streampulse_ops.environments import lock

KEPT_VARIABLES = ("STREAMPULSE_INVENTORIES", "XDG_CACHE_HOME", "XDG_STATE_HOME")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m streampulse_ops.machines", description=__doc__)
    made.add_argument("verb", choices=("up", "down", "destroy", "list", "prepare"))
    made.add_argument("--env", default="local", help="name of the environment")
    # The calling task holds the environment's lock already.
    made.add_argument("--locked", action="store_true", help=argparse.SUPPRESS)
    return made


def become_root(arguments: Sequence[str]) -> None:
    """Run this command again through sudo.

    :raises OperatorError: sudo is missing.
    """
    if which("sudo") is None:
        raise OperatorError("machines of provider nspawn are made by root and there is no sudo here: run it as root")
    kept = [f"{name}={os.environ[name]}" for name in KEPT_VARIABLES if name in os.environ]
    own = [sys.executable, "-m", "streampulse_ops.machines", *arguments]
    os.execvp("sudo", ["sudo", *kept, *own])  # noqa: S606, S607 - a list; sudo is where the system has it


def say(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(arguments: argparse.Namespace) -> int:
    """Run the verb and return the exit code."""
    environment = environments.load(arguments.env)
    provider = machines.provider_for(environment, say)
    if arguments.verb == "list":
        for host in environment.hosts:
            state = "running" if provider.running(host) else "down"
            say(f"{host.name}\t{provider.address(host)}\t{state}")
        return 0
    if environment.provider == "nspawn" and os.geteuid() != 0:
        become_root(sys.argv[1:])
    environment.state.mkdir(parents=True, exist_ok=True)
    if environment.state.stat().st_uid == 0:
        give_to_invoker(environment.state)
    if arguments.verb == "prepare":
        return 0
    if arguments.locked:
        act(arguments.verb, environment, provider)
        return 0
    with lock.held(environment.state / "lock", f"machines {arguments.verb}"):
        act(arguments.verb, environment, provider)
        if arguments.verb == "destroy":
            lock.discard(environment.state / "lock")
    return 0


def act(verb: str, environment: environments.Environment, provider: machines.Provider) -> None:
    """Start, stop or remove the machines, and report the changes."""
    work = {"up": machines.bring_up, "down": machines.bring_down, "destroy": machines.remove}[verb]
    words = {"up": "up", "down": "stopped", "destroy": "removed"}[verb]
    touched = work(environment, provider)
    for host in touched:
        say(f"{host.name} {words}" + (f" at {provider.address(host)}" if verb == "up" else ""))
    if not touched:
        say(f"{environment.name}: nothing to do")


def main() -> int:
    """Run the command: 0 done, 1 an explained failure, 2 wrong usage."""
    set_umask()
    try:
        return run(parser().parse_args())
    except OperatorError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{explain(error)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what was half made has been taken back\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
